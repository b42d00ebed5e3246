import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, test } from "vitest";
import { runWell } from "./run.ts";

/** A suite for the newest Node there is, which comes as an npm package. Where it cannot be had: fails in CI, is skipped loudly elsewhere. */
export async function describeNewestNode(title: string, body: (node: string) => void): Promise<void> {
  const name = `node-linux-${process.arch}`;
  const folder = await mkdtemp(join(tmpdir(), "newest-node-"));
  afterAll(() => rm(folder, { recursive: true }));
  const node = join(folder, "node_modules", name, "bin/node");
  try {
    await runWell("npm", [
      "install",
      "--prefix",
      folder,
      "--prefer-offline",
      "--no-audit",
      "--no-fund",
      `${name}@latest`,
    ]);
    const version = await runWell(node, ["--version"]);
    describe(`${title}: Node ${version.trim()}`, () => body(node));
  } catch (error) {
    if (process.env.CI === "true") throw error;
    console.warn(`\n*** NOT TESTED: ${title} needs the npm package ${name}: ${error} ***\n`);
    describe.runIf(false)(title, () => test("needs the newest Node", () => {}));
  }
}
