import { existsSync } from "node:fs";
import { expect, test } from "vitest";
import type { SavedVm } from "../../src/control/options.ts";
import { MultifdError } from "../../src/errors.ts";
import { inspect, verify } from "../../src/index.ts";
import type { Monitor } from "../../src/qmp/monitor.ts";
import { HelperEngine } from "../../src/vm/save/helper-engine.ts";
import { FakePeer, tinyMigration } from "../support/fake-peer.ts";
import { useScratch } from "../support/scratch.ts";

/*
 * A QEMU that sent everything and was gone before anybody could ask it how it went: no real one dies in that moment on
 * demand. The data path is the real one.
 */

const scratch = useScratch();

/** Of a QEMU that libvirt did not start. */
const MONITOR: Monitor = {
  place: "a monitor",
  version: { major: 10, minor: 0, micro: 2, package: "" },
  pid: null,
  passesFds: false,
  execute: () => Promise.reject(new MultifdError("QEMU_FAILED", "refused", { class: "DeviceNotFound" })),
  onEvent: () => () => undefined,
  close: async () => undefined,
};

const VM: SavedVm = {
  qemuVersion: "10.0.2",
  record: {
    ...{ uuid: null, accelerator: "kvm", commandLine: null, cpuModel: null, cpus: 1, ramBytes: 8192 },
    ...{ running: true, ranOn: false, disks: [], devices: [] },
  },
};

async function saveFrom(streams: readonly Buffer[], warnings: string[]): Promise<unknown> {
  const image = scratch.file("vm.mfd");
  const none = (): undefined => undefined;
  const log = {
    debug: none,
    info: none,
    error: none,
    warn: (_: object, text: string) => void warnings.push(text),
  };
  const engine = new HelperEngine({ image, vm: { qmp: "/nowhere" }, workers: 1, log }, 2, MONITOR);
  return await engine.run({
    directory: scratch.directory,
    signal: new AbortController().signal,
    begin: (uri) => void new FakePeer(uri).play(streams),
    figures: () => null,
    outcome: async () => "qemu ended",
    describe: async () => VM,
    onEvent: () => undefined,
  });
}

test("its stream is whole: the image is kept, with a warning", async () => {
  const warnings: string[] = [];
  await saveFrom(tinyMigration(2), warnings);
  expect(warnings).toEqual([expect.stringContaining("QEMU ended before it called the migration completed")]);
  await verify({ image: scratch.file("vm.mfd") });
  expect((await inspect({ image: scratch.file("vm.mfd") })).metadata?.vm).toMatchObject({ running: true });
});

test("its stream was cut: nothing is saved", async () => {
  const [main, ...channels] = tinyMigration(2);
  const cut = [(main as Buffer).subarray(0, -1), ...channels];
  await expect(saveFrom(cut, [])).rejects.toMatchObject({ code: "STREAM_INCOMPLETE" });
  expect(existsSync(scratch.file("vm.mfd"))).toBe(false);
});
