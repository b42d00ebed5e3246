import { expect, test } from "vitest";
import { snapshotVm } from "../../../src/index.ts";
import type { SnapshotVmOptions } from "../../../src/vm/snapshot/options.ts";

/** Nobody listens there: what gets as far as connecting is no mistake of the options. */
const VM = { image: "vm.mfd", vm: { qmp: "/nowhere/qmp.sock" } };

test.each<[string, Partial<SnapshotVmOptions>]>([
  ["disks and memory-only exclude each other", { disks: true, memoryOnly: true }],
  ["a background snapshot is one plain stream", { channels: 4 }],
  ["a background snapshot is one plain stream", { compression: "zstd" }],
  ["it needs disks", { name: "monday" }],
  ["is not 1 to 64 letters", { disks: true, name: "a/b" }],
  ["is not 1 to 64 letters", { disks: true, name: "" }],
  ["is not 1 to 64 letters", { disks: true, name: "a".repeat(65) }],
])("%s: %j is refused", async (message, options) => {
  await expect(snapshotVm({ ...VM, ...options })).rejects.toMatchObject({
    code: "USAGE",
    message: expect.stringContaining(message),
  });
});

test.each<Partial<SnapshotVmOptions>>([
  {},
  { memoryOnly: true },
  { live: {}, channels: 4, compression: "zstd" },
  { disks: true, name: "monday-1_2" },
])("%j is not", async (options) => {
  await expect(snapshotVm({ ...VM, ...options })).rejects.toMatchObject({ code: "MONITOR_UNREACHABLE" });
});
