import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { text } from "node:stream/consumers";
import { afterEach, beforeEach, expect, test } from "vitest";
import { MAIN } from "../../src/entry-points.ts";
import type { QemuBinary } from "../../src/vm/find-qemu.ts";
import { describeEachQemu } from "../support/qemus.ts";

const PLACES = ["ram", "image", "tmp"] as const;

let home: string;

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), "demo-"));
  for (const place of PLACES) await mkdir(join(home, place));
});
afterEach(() => rm(home, { recursive: true }));

/** The demo as a person runs it, confined to directories of this test. */
function spawnDemo(binary: QemuBinary, ...args: string[]): ChildProcessByStdio<null, Readable, Readable> {
  const [ram, image, tmp] = PLACES.map((place) => join(home, place)) as [string, string, string];
  const options = ["--qemu", binary.path, "--ram-dir", ram, "--dir", image, ...args];
  return spawn(process.execPath, [MAIN, "demo", ...options], {
    env: { ...process.env, TMPDIR: tmp },
    stdio: ["ignore", "pipe", "pipe"],
  });
}

async function expectNothingLeft(): Promise<void> {
  for (const place of PLACES) expect(await readdir(join(home, place)), place).toEqual([]);
  expect(await processesOfThisTest()).toEqual([]);
}

/** QEMUs, their launchers and the demo itself: all of them inherit its TMPDIR. */
async function processesOfThisTest(): Promise<string[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const environments = await Promise.all(
    pids.map(async (pid) => [pid, await readFile(`/proc/${pid}/environ`, "utf8").catch(() => "")] as const),
  );
  return environments.flatMap(([pid, environment]) => (environment.includes(home) ? [pid] : []));
}

describeEachQemu("the demo", (binary) => {
  test("tells every step, finds the RAM identical, and leaves nothing", async () => {
    const demo = spawnDemo(binary, "--ram", "64M", "--channels", "2");
    const [[status], stdout, stderr] = await Promise.all([
      once(demo, "close"),
      text(demo.stdout),
      text(demo.stderr),
    ]);
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    expect(stdout).toMatch(new RegExp(`^QEMU +${binary.version.replaceAll(".", "\\.")} with (KVM|TCG)`));
    expect(stdout).toContain(`RAM in      ${home}/ram: `);
    expect(stdout).toContain(`image in    ${home}/image: `);
    expect(stdout).toMatch(/^saved .* MiB in .* s, .*\/s$/m);
    expect(stdout).toMatch(/written with O_DIRECT|refuses O_DIRECT/);
    for (const channel of ["main", "channel 0", "channel 1"]) {
      // Once for the save and once for the restore, each with its size and its speed.
      const rows = stdout.match(new RegExp(`^ +${channel} +[\\d.]+ [KM]iB +[\\d.]+ \\w+/s$`, "gm"));
      expect(rows, channel).toHaveLength(2);
    }
    expect(stdout).toMatch(/^verified +checksums and structure of \d+ blocks/m);
    expect(stdout).toMatch(/^compared +16384 pages .* all identical$/m);
    expect(stdout).toMatch(/\n\nThe guest came back bit for bit\.\n$/);
    for (const line of stdout.split("\n")) expect(line.length, line).toBeLessThanOrEqual(80 + home.length);
    await expectNothingLeft();
  });

  test("answers with one object under --json", async () => {
    const demo = spawnDemo(binary, "--ram", "32M", "--channels", "1", "--json");
    const [[status], stdout] = await Promise.all([once(demo, "close"), text(demo.stdout), text(demo.stderr)]);
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      planned: { qemu: { version: binary.version }, ramBytes: 32 * 2 ** 20, channels: 1 },
      saved: { result: { image: { multifdChannels: 1 } } },
      verified: { result: { checked: "checksums and structure" } },
      compared: { result: { pages: 8192, differing: 0 } },
    });
    await expectNothingLeft();
  });

  // What is running when the signal comes: making RAM, saving, restoring.
  test.each(["image in", "started", "verified"])("SIGTERM after '%s' leaves nothing", async (word) => {
    const demo = spawnDemo(binary, "--ram", "256M");
    let stdout = "";
    demo.stdout.setEncoding("utf8").on("data", (piece: string) => {
      const before = stdout;
      stdout += piece;
      if (stdout.includes(word) && !before.includes(word)) demo.kill("SIGTERM");
    });
    const [[status], stderr] = await Promise.all([once(demo, "close"), text(demo.stderr)]);
    expect({ status, stderr }).toEqual({
      status: 143,
      stderr: "multifd-helper: cancelled by SIGTERM [CANCELLED]\n",
    });
    expect(stdout).not.toContain("identical");
    await expectNothingLeft();
  });

  test("says which directory has no room for the guest's RAM, and stops", async () => {
    const demo = spawnDemo(binary, "--ram", "64T");
    const [[status], stderr] = await Promise.all([once(demo, "close"), text(demo.stderr), text(demo.stdout)]);
    expect(status).toBe(5);
    expect(stderr).toMatch(/^multifd-helper: no directory has room .*\/ram: .* free.*\[NO_SPACE\]\n$/);
    await expectNothingLeft();
  });
});

test("a QEMU that cannot be started is named, with exit status 7", async () => {
  const nowhere = { path: join(home, "qemu"), version: "", major: 0, minor: 0 };
  const demo = spawnDemo(nowhere);
  const [[status], stderr] = await Promise.all([once(demo, "close"), text(demo.stderr), text(demo.stdout)]);
  expect(status).toBe(7);
  expect(stderr).toMatch(/cannot start QEMU at .*\/qemu .*--qemu \[QEMU_MISSING\]\n$/);
  await expectNothingLeft();
});
