import { closeSync, openSync, readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, beforeEach, expect } from "vitest";
import { createRamFile, type RamFile } from "../../src/demo/ram-file.ts";
import { compareFiles, fillRam } from "../../src/demo/ram-pattern.ts";
import { saveVm } from "../../src/index.ts";
import { isImmutable, setImmutable } from "../../src/io/libc.ts";
import { connectQmp, type QmpClient } from "../../src/qmp/client.ts";
import type { QemuBinary } from "../../src/vm/find-qemu.ts";
import { startQemu } from "../../src/vm/qemu-process.ts";
import { dirtierDisk } from "./boot-sector.ts";
import { checkDirtyRam, currentPass } from "./dirty-ram.ts";
import { type HelperProcess, useHelpers } from "./helper-process.ts";
import { type OperatorVm, type OperatorVmOptions, operatorArgs, useOperatorVms } from "./operator-vm.ts";
import { runWell } from "./run.ts";

const MIB = 2 ** 20;
export const RAM_BYTES: number = 64 * MIB;
/** Of the dirtier: what it has never touched is zero, and not in the image. */
const WALKED = { start: MIB, end: 24 * MIB };
const PATIENCE_MS = 20_000;

/** What the saved guest does. */
export type GuestKind = "paused" | "dirtier";

/** One saved VM of each kind, and QEMUs to restore copies of it into. */
export interface InstantVms {
  /** The test's own copy of the image. */
  readonly image: string;
  file(name: string): string;
  /**
   * A QEMU that waits, with a monitor for the helper and one for the test.
   * @param ramPath null: the options say what its RAM is
   */
  waiting(options?: Partial<OperatorVmOptions>, ramPath?: string | null): Promise<OperatorVm>;
  /** `restore IMAGE ARGS`. */
  restore(args: readonly string[], image?: string): HelperProcess;
  /** `restore IMAGE --instant ARGS -- QEMU…`, and the test's own monitor of that QEMU. */
  launch(args: readonly string[]): LaunchedVm;
  /** The data plane that serves for this helper. */
  dataPlane(helper: HelperProcess, former?: number): Promise<number>;
  /** The data plane that is there now has told how it gets on. */
  serving(helper: HelperProcess): Promise<void>;
  /** The guest's RAM is what was saved, or one instant of a guest that went on. */
  expectWhole(qmp: QmpClient): Promise<void>;
  /** The guest goes on. */
  expectAlive(): Promise<void>;
  /** Waits until a thread of this QEMU waits for a page. */
  untilItWaits(qemu: number): Promise<void>;
}

export interface LaunchedVm {
  readonly helper: HelperProcess;
  monitor(): Promise<QmpClient>;
}

export function useInstantVms(binary: QemuBinary, kind: GuestKind): InstantVms {
  const vms = useOperatorVms();
  const helpers = useHelpers();
  const monitors: QmpClient[] = [];
  let kept = "";
  let source: RamFile;
  let destination: RamFile;

  const image = (): string => vms.file("vm.mr");
  /** Nothing is ever written to the disk, which the image knows by its path. */
  const options = (ramPath: string | null): OperatorVmOptions => ({
    ...{ binary, ramBytes: RAM_BYTES },
    ...(ramPath === null ? {} : { ramPath }),
    ...(kind === "dirtier" ? { disks: [{ path: join(kept, "disk") }] } : {}),
  });

  beforeAll(async () => {
    kept = await mkdtemp(join(tmpdir(), "mfd-instant-"));
    source = await createRamFile(RAM_BYTES);
    await writeFile(join(kept, "disk"), dirtierDisk({ ...WALKED, spin: 20_000 }));
    if (kind === "paused") await fillRam(source.path, RAM_BYTES, 5);
    const monitor = join(kept, "qmp");
    const start = kind === "paused" ? "paused" : "running";
    const args = [...operatorArgs({ ...options(source.path), start })];
    const vm = await startQemu({ binary, args: [...args, "-qmp", `unix:${monitor},server=on,wait=off`] });
    if (kind === "dirtier") {
      while ((await currentPass(source.path, WALKED)) < 2) await sleep(20);
    }
    await saveVm({ image: join(kept, "vm.mr"), format: "mapped-ram", vm: { qmp: monitor } });
    await vm.kill();
  });
  afterAll(async () => {
    await source.close();
    await rm(kept, { recursive: true });
  });

  beforeEach(async () => {
    destination = await createRamFile(RAM_BYTES);
    await runWell("cp", ["--sparse=always", join(kept, "vm.mr"), image()]);
  });
  afterEach(async () => {
    await Promise.all(monitors.splice(0).map((monitor) => monitor.close()));
    await destination.close();
    mutable(image());
  });

  const restore: InstantVms["restore"] = (args, of = image()) => helpers(["restore", of, ...args]);

  return {
    get image() {
      return image();
    },
    file: vms.file,
    waiting: (more = {}, ramPath = destination.path) =>
      vms.start({ ...options(ramPath), start: "incoming", ...more }),
    restore,
    launch(args) {
      const own = vms.file("own.qmp");
      const qemu = operatorArgs(options(destination.path));
      const monitor = ["-qmp", `unix:${own},server=on,wait=off`];
      const helper = restore(["--instant", "--json", ...args, "--", binary.path, ...qemu, ...monitor]);
      return {
        helper,
        monitor: async () => {
          const client = await connectQmp(own, { timeoutMs: PATIENCE_MS });
          monitors.push(client);
          return client;
        },
      };
    },
    async dataPlane(helper, former) {
      const found = (): number | undefined => dataPlanesOf(helper.pid).find((pid) => pid !== former);
      await expect.poll(found, { timeout: PATIENCE_MS, interval: 10 }).toBeDefined();
      return found() as number;
    },
    async expectWhole(qmp) {
      await qmp.execute("stop");
      if (kind === "paused")
        expect(await compareFiles(source.path, destination.path)).toMatchObject({ differing: 0 });
      else expect(await checkDirtyRam(destination.path, WALKED)).toMatchObject({ violations: 0 });
    },
    async serving(helper) {
      const before = helper.events.length;
      await helper.waitEvent("progress", (event) => helper.events.indexOf(event) > before);
    },
    async expectAlive() {
      const pass = await currentPass(destination.path, WALKED);
      const later = (): Promise<number> => currentPass(destination.path, WALKED);
      await expect.poll(later, { timeout: PATIENCE_MS }).toBeGreaterThan(pass);
    },
    async untilItWaits(qemu) {
      const places = (): string[] =>
        readdirSync(`/proc/${qemu}/task`).map((task) =>
          readFileSync(`/proc/${qemu}/task/${task}/wchan`, "utf8"),
        );
      // A kernel that does not tell where threads wait says "0" of each.
      const waits = (): boolean => {
        const told = places();
        return told.includes("handle_userfault") || told.every((place) => place === "0");
      };
      await expect.poll(waits, { timeout: PATIENCE_MS, interval: 10 }).toBe(true);
    },
  };
}

/** An image that was left in the middle of a restore. */
function mutable(path: string): void {
  const fd = openSync(path, "r");
  if (isImmutable(fd)) setImmutable(fd, false);
  closeSync(fd);
}

/** Children of a process that are data planes. */
function dataPlanesOf(pid: number): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").map(Number);
  return children.filter((child) => {
    try {
      return readFileSync(`/proc/${child}/cmdline`, "utf8").split("\0").includes("fd:3");
    } catch {
      return false;
    }
  });
}

/** Waits for a status of query-migrate. */
export async function untilMigration(qmp: QmpClient, wanted: string): Promise<void> {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const { status } = (await qmp.execute("query-migrate")) as { status?: string };
    if (status === wanted) return;
    if (Date.now() > deadline) throw new Error(`the migration is ${status} and not ${wanted}`);
    await sleep(20);
  }
}
