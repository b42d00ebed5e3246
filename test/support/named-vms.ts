import { existsSync, readdirSync, readFileSync } from "node:fs";
import { copyFile, mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach } from "vitest";
import type { QemuBinary } from "../../src/vm/find-qemu.ts";
import { runCommand } from "../unit/cli/run-cli.ts";
import { countingDisk, countsTold } from "./counting-guest.ts";
import { type HelperOptions, type HelperProcess, useHelpers } from "./helper-process.ts";
import { operatorArgs } from "./operator-vm.ts";
import { useScratch } from "./scratch.ts";
import { SerialLog } from "./serial-log.ts";

const LINE_EVERY = 16;
const RAM_BYTES = 32 * 2 ** 20;
const PATIENCE_MS = 30_000;

/** VMs that are known by name: everything of a test lies in one directory, and is gone when it ends. */
export interface NamedVms {
  file(name: string): string;
  /** QEMU's command line of the VM of that name, whose guest counts. All its lives write to one serial log. */
  command(name: string, setup?: { readonly ramBytes?: number }): Promise<string[]>;
  serial(name: string): SerialLog;
  /** Runs a command with --json and the test's state directory. */
  run(args: readonly string[], options?: HelperOptions): HelperProcess;
  /** Starts a VM detached, and waits until it counts on from where its log ended. */
  start(name: string, command?: readonly string[]): Promise<HelperProcess>;
  /** A VM of that name that counted and was saved: made once, and copied for every further test. */
  saved(name: string): Promise<void>;
  /** The answer of a command that answers with one object, and its exit status. */
  answer(...args: readonly string[]): Promise<{ readonly status: number | null; readonly value: unknown }>;
  /** Path of a name in the state directory, which is made if it is not there. */
  stateFile(name: string): Promise<string>;
  /** The images in the state directory, in whatever state. */
  images(): Promise<string[]>;
  /** Process numbers of the QEMUs of this test. */
  qemus(): number[];
  endQemus(): Promise<void>;
  /** Waits until there are none. */
  noQemus(): Promise<void>;
  /** Throws unless the guest has counted without a gap and without going back, in all its lives together. */
  oneLife(name: string): Promise<number[]>;
}

export function useNamedVms(binary: QemuBinary): NamedVms {
  const scratch = useScratch();
  const helpers = useHelpers();
  const stateDirectory = (): string => scratch.file("state");
  let kept: string | null = null;

  const vms: NamedVms = {
    file: scratch.file,
    async command(name, { ramBytes = RAM_BYTES } = {}) {
      const path = scratch.file(`${name}.disk`);
      if (!existsSync(path)) await writeFile(path, countingDisk({ lineEvery: LINE_EVERY }));
      const log = `file,id=serial-log,path=${scratch.file(`${name}.serial`)},append=on`;
      const args = operatorArgs({ binary, ramBytes, disks: [{ path }] });
      return [binary.path, ...args, "-chardev", log, "-serial", "chardev:serial-log"];
    },
    serial: (name) => new SerialLog(scratch.file(`${name}.serial`)),
    run(args, options) {
      const end = args.indexOf("--");
      const at = end < 0 ? args.length : end;
      const ours = ["--json", "--state-dir", stateDirectory()];
      return helpers([...args.slice(0, at), ...ours, ...args.slice(at)], options);
    },
    async start(name, command) {
      const before = (await vms.serial(name).lines()).length;
      const rest = command === undefined ? [] : ["--", ...command];
      const helper = vms.run(["start", name, "--detach", ...rest]);
      await helper.waitEvent("started");
      await vms.serial(name).waitForLine(/^count/, { from: before });
      await helper.exit();
      return helper;
    },
    async saved(name) {
      const files = [
        [await vms.stateFile(`${name}.mfd`), "image"] as const,
        [vms.serial(name).path, "serial"] as const,
      ];
      const command = await vms.command(name);
      if (kept === null) {
        await vms.start(name, command);
        await vms.run(["managed-save", name]).success();
        kept = await mkdtemp(join(tmpdir(), "mfd-kept-"));
        for (const [path, copy] of files) await copyFile(path, join(kept, copy));
      } else {
        for (const [path, copy] of files) await copyFile(join(kept, copy), path);
        const record = { version: 1, command, cwd: process.cwd() };
        await writeFile(await vms.stateFile(`${name}.vm.json`), `${JSON.stringify(record)}\n`);
      }
    },
    async answer(...args) {
      const { status, stdout } = await runCommand(...args, "--json", "--state-dir", stateDirectory());
      return { status, value: JSON.parse(stdout) };
    },
    async stateFile(name) {
      await mkdir(stateDirectory(), { recursive: true, mode: 0o700 });
      return join(stateDirectory(), name);
    },
    async images() {
      const files = await readdir(stateDirectory()).catch(() => []);
      return files.filter((file) => file.includes(".mfd")).sort();
    },
    qemus: () => processesWith(scratch.directory, "append=on"),
    async endQemus() {
      for (const pid of vms.qemus()) process.kill(pid, "SIGKILL");
      await vms.noQemus();
    },
    noQemus: () => until(() => vms.qemus().length === 0, "the end of all QEMUs"),
    async oneLife(name) {
      const told = countsTold(await vms.serial(name).text());
      const gap = told.findIndex((count, index) => count !== (index + 1) * LINE_EVERY);
      if (gap >= 0) throw new Error(`line ${gap} is count ${told[gap]}, after ${told[gap - 1]}`);
      return told;
    },
  };
  afterEach(() => vms.endQemus());
  afterAll(() => rm(kept ?? "", { recursive: true, force: true }));
  return vms;
}

/** Processes that have both texts among their arguments. */
function processesWith(...texts: readonly string[]): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      const line = commandLine(pid);
      return pid !== process.pid && texts.every((text) => line.includes(text));
    });
}

/** Empty for a process that has ended. */
function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "latin1");
  } catch {
    return "";
  }
}

async function until(done: () => boolean, what: string): Promise<void> {
  const deadline = Date.now() + PATIENCE_MS;
  while (!done()) {
    if (Date.now() > deadline) throw new Error(`waited ${PATIENCE_MS} ms for ${what}`);
    await sleep(10);
  }
}
