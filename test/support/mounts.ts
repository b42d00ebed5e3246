import { execFileSync } from "node:child_process";
import { closeSync, mkdirSync, openSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, test } from "vitest";
import { setImmutable } from "../../src/io/libc.ts";

/** File systems and devices of a test's own; they are gone when the test ends. */
export interface Mounts {
  /** A new file system at `directory`, which is made. */
  mount(type: "tmpfs" | "ramfs", directory: string, options?: string): void;
  /** A new ext4 of this size, over a file beside it, at `directory`, which is made. */
  mountExt4(directory: string, bytes: number): void;
  /** Makes what was mounted at `directory` read-only. */
  makeReadOnly(directory: string): void;
  /** A block device over a new file of this size; returns the device's path. */
  loopDevice(file: string, bytes: number): string;
}

export function useMounts(): Mounts {
  const undo: (() => void)[] = [];
  afterEach(() => {
    for (const step of undo.splice(0).reverse()) step();
  });
  return {
    mount(type, directory, options = "mode=0755") {
      mkdirSync(directory);
      execFileSync("mount", ["-t", type, "-o", options, "multifd-test", directory]);
      undo.push(() => execFileSync("umount", ["--lazy", directory]));
    },
    mountExt4(directory, bytes) {
      mkdirSync(directory);
      const device = attachLoopDevice(`${directory}.ext4`, bytes);
      undo.push(device.detach);
      execFileSync("mkfs.ext4", ["-q", "-m", "0", device.path]);
      execFileSync("mount", [device.path, directory]);
      undo.push(() => execFileSync("umount", ["--lazy", directory]));
    },
    makeReadOnly(directory) {
      execFileSync("mount", ["-o", "remount,ro", directory]);
    },
    loopDevice(file, bytes) {
      const device = attachLoopDevice(file, bytes);
      undo.push(device.detach);
      return device.path;
    },
  };
}

/** A block device over a new file of this size, until it is detached. */
export function attachLoopDevice(file: string, bytes: number): { readonly path: string; detach(): void } {
  writeFileSync(file, "");
  truncateSync(file, bytes);
  const path = execFileSync("losetup", ["--find", "--show", file], { encoding: "utf8" }).trim();
  return { path, detach: () => void execFileSync("losetup", ["--detach", path]) };
}

/** A suite that may mount; says loudly that it did not run where that is not allowed. */
export function describeWithMounts(title: string, body: () => void): void {
  suite(title, "mounting", "unshare", ["--mount", "mount", "-t", "tmpfs", "multifd-test", "/mnt"], body);
}

/** A suite that needs loop devices; likewise. */
export function describeWithLoopDevices(title: string, body: () => void): void {
  suite(title, "loop devices", "losetup", ["--find"], body);
}

/** A suite that makes temporary files immutable; likewise. */
export function describeWithImmutable(title: string, body: () => void): void {
  suiteIf(title, "immutable files in the directory for temporary ones", makeImmutable, body);
}

function makeImmutable(): void {
  const file = join(tmpdir(), `multifd-test-${process.pid}`);
  const fd = openSync(file, "w");
  rmSync(file);
  setImmutable(fd, true);
  closeSync(fd);
}

function suite(
  title: string,
  need: string,
  command: string,
  args: readonly string[],
  body: () => void,
): void {
  suiteIf(title, need, () => void execFileSync(command, args, { stdio: "ignore" }), body);
}

/** @param attempt throws where the suite cannot run */
function suiteIf(title: string, need: string, attempt: () => void, body: () => void): void {
  try {
    attempt();
  } catch {
    console.warn(`\n*** NOT TESTED: ${title} needs ${need}, which this user or machine lacks ***\n`);
    describe.runIf(false)(title, () => test(`needs ${need}`, () => {}));
    return;
  }
  describe(title, body);
}
