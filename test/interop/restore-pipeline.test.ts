import { existsSync } from "node:fs";
import { mkdir, open, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { inspect } from "../../src/index.ts";
import type { QemuBinary } from "../../src/vm/find-qemu.ts";
import { countingDisk, countsTold } from "../support/counting-guest.ts";
import { useHelpers } from "../support/helper-process.ts";
import { HELPER } from "../support/managed-vms.ts";
import { operatorArgs, useOperatorVms } from "../support/operator-vm.ts";
import { describeBothQemus } from "../support/qemus.ts";
import { findRepoRoot } from "../support/repo.ts";
import { type Ended, run } from "../support/run.ts";
import type { SerialLog } from "../support/serial-log.ts";

const PIPELINE = join(findRepoRoot(), "docs/examples/restore-pipeline.sh");
const RAM = 64 * 2 ** 20;
const LINE_EVERY = 16;

interface SavedVm {
  readonly directory: string;
  readonly image: string;
  readonly serial: SerialLog;
}

describeBothQemus("the restore pipeline", ({ ten }) => {
  const vms = useOperatorVms();
  const start = useHelpers();
  const pids = new Set<number>();
  afterEach(() => {
    for (const pid of pids) process.kill(pid, "SIGKILL");
    pids.clear();
  });

  /** A guest that counted, was saved and has ended, and the directory that the pipeline wants for it. */
  async function savedVm(name: string, options: readonly string[]): Promise<SavedVm> {
    const directory = vms.file(name);
    const image = vms.file(`${name}.mfd`);
    const disk = vms.file(`${name}.disk`);
    await mkdir(directory);
    await writeFile(disk, countingDisk({ lineEvery: LINE_EVERY }));
    const setup = { binary: ten, ramBytes: RAM, disks: [{ path: disk }] };
    const vm = await vms.start(setup);
    await vm.serial.waitForLine(/^count 00000040$/);
    await start(["save", image, "--json", "--qmp", vm.monitorPath, ...options]).success();
    await writeFile(join(directory, "source"), `${image}\n`);
    await writeQemu(directory, ten, [...operatorArgs(setup), ...vm.serial.args.map(appending)]);
    return { directory, image, serial: vm.serial };
  }

  async function pipeline(...args: readonly string[]): Promise<Ended> {
    const ended = await run(PIPELINE, args, { env: { HELPER: HELPER.join(" ") } });
    for (const [, pid] of ended.stdout.matchAll(/: runs, process (\d+)$/gm)) pids.add(Number(pid));
    return ended;
  }

  test("brings two VMs back, and of three only the one whose image is damaged not", async () => {
    const [first, second, third] = await Promise.all([
      savedVm("first", []),
      savedVm("second", ["--engine", "file"]),
      savedVm("third", ["--channels", "2"]),
    ]);
    const directories = [first, second, third].map(({ directory }) => directory);
    await flipByte(third.image);

    const ended = await pipeline("-j", "3", ...directories);
    expect(ended).toMatchObject({ status: 1, stderr: "" });
    const lines = ended.stdout.trimEnd().split("\n").toSorted();
    expect(lines).toEqual([
      expect.stringMatching(/first: runs, process \d+$/),
      expect.stringMatching(/second: runs, process \d+$/),
      expect.stringMatching(/third: FAILED at verify, status 4: .*\[IMAGE_DAMAGED\]$/),
    ]);
    for (const { serial } of [first, second]) {
      const told = countsTold(await serial.text()).length;
      await serial.waitForLine(/^count/, { from: told + 5 });
      const counts = countsTold(await serial.text());
      expect(counts).toEqual(counts.map((_, index) => (index + 1) * LINE_EVERY));
    }
    expect(directories.map((directory) => existsSync(join(directory, "vm.mfd")))).toEqual([
      false,
      false,
      false,
    ]);
    expect(existsSync(join(third.directory, "pid"))).toBe(false);

    // The image mended: that VM comes back, and those that run are not started twice.
    await flipByte(third.image);
    const again = await pipeline(first.directory, third.directory);
    expect(again.status).toBe(1);
    expect(again.stdout).toMatch(/first: FAILED at fetch, status 1: process \d+ runs it already$/m);
    expect(again.stdout).toMatch(/third: runs, process \d+$/m);
    await third.serial.waitForLine(/^count/, { from: countsTold(await third.serial.text()).length + 5 });
  });

  test("ends with 0 when all run, and with 2 when it is not told what to do", async () => {
    const vm = await savedVm("only", []);
    expect(await pipeline(vm.directory)).toMatchObject({ status: 0, stderr: "" });
    const pid = Number(await readFile(join(vm.directory, "pid"), "utf8"));
    expect(pids).toContain(pid);
    expect((await pipeline()).status).toBe(2);
    expect((await pipeline("-j", "many", vm.directory)).status).toBe(2);
  });
});

/** QEMU empties a log that it opens, unless it is told to append. */
function appending(argument: string): string {
  return argument.startsWith("file,id=") ? `${argument},append=on` : argument;
}

async function writeQemu(directory: string, { path }: QemuBinary, args: readonly string[]): Promise<void> {
  const words = [path, ...args].map((word) => `'${word.replaceAll("'", "'\\''")}'`);
  await writeFile(join(directory, "qemu"), `#!/bin/sh\nexec ${words.join(" ")} "$@"\n`, { mode: 0o755 });
}

/** Damages a byte in the middle of a channel's data; the second time it mends it. */
async function flipByte(image: string): Promise<void> {
  const report = await inspect({ image });
  const data =
    report.format === "stream" ? report.ranges.find(({ what }) => what === "channel 0") : undefined;
  const { offset, length } = data as { offset: number; length: number };
  const file = await open(image, "r+");
  try {
    const byte = Buffer.alloc(1);
    const at = offset + Math.floor(length / 2);
    await file.read(byte, 0, 1, at);
    await file.write(Buffer.from([(byte[0] ?? 0) ^ 1]), 0, 1, at);
  } finally {
    await file.close();
  }
}
