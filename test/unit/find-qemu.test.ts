import { chmod, mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { chooseQemu, findQemus } from "../../src/vm/find-qemu.ts";

let directory: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "qemus-"));
  vi.stubEnv("PATH", [join(directory, "a"), join(directory, "b"), "/bin"].join(":"));
  vi.stubEnv("XDG_CACHE_HOME", join(directory, "cache"));
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(directory, { recursive: true });
});

async function fakeQemu(path: string, says: string): Promise<string> {
  const file = join(directory, path, "qemu-system-x86_64");
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, `#!/bin/sh\n${says}\n`);
  await chmod(file, 0o755);
  return file;
}

test("PATH and the cache are searched; oldest first, each once, broken ones left out", async () => {
  const ten = await fakeQemu(
    "cache/multifd-helper/qemu-10",
    'echo "QEMU emulator version 10.0.2 (Debian 1:10)"',
  );
  const seven = await fakeQemu("a", 'echo "QEMU emulator version 7.2.22"');
  await mkdir(join(directory, "b"));
  await symlink(seven, join(directory, "b/qemu-system-x86_64"));
  await fakeQemu("cache/multifd-helper/qemu-broken", "echo 'libfdt.so.1: cannot open' >&2; exit 127");

  const found = await findQemus();
  expect(found.filter(({ path }) => path.startsWith(directory))).toEqual([
    { path: seven, version: "7.2.22", major: 7, minor: 2 },
    { path: ten, version: "10.0.2", major: 10, minor: 0 },
  ]);
  expect((await chooseQemu()).major).toBeGreaterThanOrEqual(10);
});

test("one that is named is the only one, and must work", async () => {
  const named = await fakeQemu("own", 'echo "QEMU emulator version 9.2.0"');
  expect(await findQemus(named)).toEqual([{ path: named, version: "9.2.0", major: 9, minor: 2 }]);

  const broken = await fakeQemu("broken", "echo no libraries >&2; exit 127");
  await expect(chooseQemu(broken)).rejects.toMatchObject({
    code: "QEMU_MISSING",
    message: expect.stringContaining("no libraries"),
  });
  await expect(chooseQemu(join(directory, "none"))).rejects.toMatchObject({
    code: "QEMU_MISSING",
    message: expect.stringContaining("ENOENT"),
  });
});

test("a program that is no QEMU is not taken for one", async () => {
  const other = await fakeQemu("other", "echo hello");
  await expect(chooseQemu(other)).rejects.toMatchObject({ code: "QEMU_MISSING", details: { path: other } });
});
