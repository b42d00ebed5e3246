import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { inspect } from "../../src/index.ts";
import { describeEachQemu } from "../support/qemus.ts";
import { EXAMPLE_OUTPUT, readLibraryExample } from "../support/readme.ts";
import { findRepoRoot } from "../support/repo.ts";
import { run } from "../support/run.ts";

let home: string;
let workplace: string;

beforeEach(async () => {
  // Below package.json, so that "multifd-helper" is this very package; its own files go elsewhere.
  home = await mkdtemp(join(findRepoRoot(), "dist/example-"));
  workplace = await mkdtemp(join(tmpdir(), "example-"));
});
afterEach(async () => {
  await rm(home, { recursive: true });
  await rm(workplace, { recursive: true });
});

describeEachQemu("the library example of the README", (binary) => {
  test("saves a VM, verifies the image and restores it", async () => {
    const program = join(home, "example.mjs");
    await writeFile(program, await readLibraryExample());
    const ended = await run(process.execPath, [program], { cwd: workplace, env: { QEMU: binary.path } });
    expect(ended).toEqual({ status: 0, stdout: expect.stringMatching(EXAMPLE_OUTPUT), stderr: "" });
    expect(await readdir(workplace)).toEqual(["vm.mfd"]);
    const report = await inspect({ image: join(workplace, "vm.mfd") });
    expect(report).toMatchObject({ sealed: true, metadata: { evidence: { decidedBy: "commit" } } });
  });
});
