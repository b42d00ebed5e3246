import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { describeNewestNode } from "../support/newest-node.ts";
import { describeBothQemus } from "../support/qemus.ts";
import { EXAMPLE_OUTPUT, readLibraryExample } from "../support/readme.ts";
import { findRepoRoot } from "../support/repo.ts";
import { run, runWell } from "../support/run.ts";

const ROOT = findRepoRoot();
const FOR_USERS =
  /^(package\.json|README\.md|CHANGELOG\.md|LICENSE|docs\/.+|dist\/bundles\/.+\.js|dist\/src\/.+\.d\.ts)$/;

let folder: string;
let packed: readonly string[];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "package-"));
  // Without scripts: prepack would build again, below the feet of the tests that run from there.
  const answer = await runWell("npm", ["pack", "--ignore-scripts", "--json", "--pack-destination", folder], {
    cwd: ROOT,
  });
  const [{ filename, files }] = JSON.parse(answer);
  packed = files.map(({ path }: { path: string }) => path);
  await writeFile(join(folder, "package.json"), "{}");
  // And again without: many sites allow no install scripts, so that nothing may depend on one.
  const options = ["--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund"];
  await runWell("npm", ["install", ...options, `./${filename}`], { cwd: folder });
}, 180_000);
afterAll(() => rm(folder, { recursive: true }));

test("the tarball holds what users need and nothing else", async () => {
  expect(packed.filter((path) => !FOR_USERS.test(path))).toEqual([]);
  const { bin, exports } = JSON.parse(await readFile(join(ROOT, "package.json"), "utf8"));
  const needed = [bin["multifd-helper"], exports["."].default, exports["."].types];
  expect(packed.map((path) => `./${path}`)).toEqual(
    expect.arrayContaining(needed.map((path: string) => `./${path.replace(/^\.\//, "")}`)),
  );
  const workers = (await readdir(join(ROOT, "workers"))).map(
    (file) => `workers/${file.replace(/\.ts$/, "")}`,
  );
  for (const program of [...workers, "src/vm/guard/guardian-main", "src/bench/generator/thread"])
    expect(packed).toContain(`dist/bundles/${program}.js`);
  for (const page of ["README.md", "LICENSE", "CHANGELOG.md", "docs/manager-contract.md"]) {
    expect(packed).toContain(page);
  }
});

test("its links lead to pages that are in it", async () => {
  const readme = await readFile(join(ROOT, "README.md"), "utf8");
  const links = [...readme.matchAll(/\]\((?!https?:)([^)#]+)/g)].map(([, target]) => target);
  expect(links.length).toBeGreaterThan(4);
  for (const link of links) expect(packed).toContain(link);
});

function onNode(node: string): void {
  const env = { PATH: [dirname(node), process.env.PATH].join(delimiter) };
  const command = (...args: string[]): ReturnType<typeof run> =>
    run("node_modules/.bin/multifd-helper", args, { cwd: folder, env });

  test("--help and capabilities work", async () => {
    expect(await command("--help")).toMatchObject({ status: 0, stdout: expect.stringMatching(/^Usage: /) });
    const { platform } = JSON.parse((await command("capabilities", "--json")).stdout);
    expect(platform.node).toBe((await runWell(node, ["--version"])).trim());
  });

  test("the library can be imported by its name, and nothing below it", async () => {
    const program = `
      import * as library from "multifd-helper";
      console.log(Object.keys(library).sort().join());
      await import("multifd-helper/dist/src/control/save.js").catch(({ code }) => console.log(code));`;
    const { stdout, stderr } = await run(node, ["--input-type=module", "--eval", program], { cwd: folder });
    expect({ stdout, stderr }).toEqual({
      stdout: `${LIBRARY.join()}\nERR_PACKAGE_PATH_NOT_EXPORTED\n`,
      stderr: "",
    });
  });

  describeBothQemus("with a real QEMU", ({ ten }) => {
    test("the README's program makes a round trip, and the command reads its image", async () => {
      await writeFile(join(folder, "example.mjs"), await readLibraryExample());
      const ended = await run(node, ["example.mjs"], { cwd: folder, env: { QEMU: ten.path } });
      expect(ended).toEqual({ status: 0, stdout: expect.stringMatching(EXAMPLE_OUTPUT), stderr: "" });

      const inspected = await command("inspect", "vm.mfd", "--json");
      expect(JSON.parse(inspected.stdout)).toMatchObject({
        sealed: true,
        destination: { multifdChannels: 4 },
      });
      expect(await command("verify", "vm.mfd")).toMatchObject({
        status: 0,
        stdout: expect.stringMatching(/^Verified vm\.mfd: /),
        stderr: "",
      });
    });
  });
}

const LIBRARY = [
  ...[
    "ERROR_CODES",
    "MultifdError",
    "convert",
    "diff",
    "domainXml",
    "extract",
    "inspect",
    "managedList",
    "managedRemove",
    "managedSave",
    "managedSaveAll",
  ],
  ...[
    "managedStart",
    "managedStartAll",
    "recover",
    "restore",
    "restoreInstant",
    "restoreLaunched",
    "restoreLaunchedInstant",
    "restoreVm",
    "restoreVmInstant",
    "resumeInstant",
    "save",
    "saveVm",
  ],
  ...["snapshotVm", "verify"],
];

describe("the installed package, on this Node", () => {
  onNode(process.execPath);

  test("npx finds its command", async () => {
    const stdout = await runWell("npx", ["--no-install", "multifd-helper", "--version"], { cwd: folder });
    expect(stdout).toBe(`${JSON.parse(await readFile(join(ROOT, "package.json"), "utf8")).version}\n`);
  });
});

await describeNewestNode("the installed package, on the newest Node", onNode);
