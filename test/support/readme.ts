import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { findRepoRoot } from "./repo.ts";

/** The one block of the README that uses the library. */
export async function readLibraryExample(): Promise<string> {
  const readme = await readFile(join(findRepoRoot(), "README.md"), "utf8");
  const blocks = [...readme.matchAll(/^```js\n(.*?)^```$/gms)].map(([, code]) => code ?? "");
  const [example, ...others] = blocks.filter((code) => code.includes('from "multifd-helper"'));
  if (example === undefined || others.length > 0) throw new Error("the README has not one library example");
  return example;
}

/** What the example prints when all went well. */
export const EXAMPLE_OUTPUT: RegExp =
  /^saved pc-q35-.* over 5 connections\nverified checksums and structure of \d+ blocks\nrestored, and the guest is \w+\n$/;
