import type { Buffer } from "node:buffer";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { findRepoRoot } from "../support/repo.ts";

/** What a file of the corpus is, and so which targets it is fed to. */
export const KINDS = [
  "stream",
  "index",
  "metadata",
  "superblock",
  "vmdescription",
  "image",
  "mapped",
  "map",
  "footer",
  "mark",
  "libvirt",
  "answers",
] as const;
export type Kind = (typeof KINDS)[number];

export type Corpus = Readonly<Record<Kind, readonly Buffer[]>>;

/** Reads `NAME.KIND.gz`: well-formed inputs, and those that once found a defect. */
export function readCorpus(): Corpus {
  const folder = join(findRepoRoot(), "test/fuzz/corpus");
  const names = readdirSync(folder).sort();
  const entries = KINDS.map((kind) => [
    kind,
    names
      .filter((name) => name.endsWith(`.${kind}.gz`))
      .map((name) => gunzipSync(readFileSync(join(folder, name)))),
  ]);
  return Object.fromEntries(entries) as Corpus;
}
