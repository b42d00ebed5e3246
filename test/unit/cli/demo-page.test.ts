import { homedir } from "node:os";
import { expect, test } from "vitest";
import { describeStep, doingAfter } from "../../../src/cli/demo-page.ts";
import type { DemoStep } from "../../../src/demo/demo.ts";
import type { CompletedEvent } from "../../../src/index.ts";

const MIB = 2 ** 20;

const DISK = { directory: "/tmp", inMemory: false, room: 9, reason: "/tmp: disk, 9.0 GiB free" };
const MEMORY = { directory: "/dev/shm", inMemory: true, room: 9, reason: "/dev/shm: tmpfs, 9.0 GiB free" };

const PLAN: Extract<DemoStep, { step: "planned" }> = {
  step: "planned",
  qemu: { path: "/usr/bin/qemu-system-x86_64", version: "7.2.22", major: 7, minor: 2 },
  accelerator: "kvm",
  ramBytes: 1024 * MIB,
  channels: 4,
  ramDirectory: MEMORY,
  imageDirectory: DISK,
};

/** What channel N moved: N MiB, at twice as much a second. */
function completed(channels: number, directIo = true): CompletedEvent {
  const rows = Array.from({ length: channels }, (_, id) => ({
    channel: id,
    bytes: (id + 1) * MIB,
    bytesPerSecond: 2 * (id + 1) * MIB,
  }));
  return {
    event: "completed",
    bytes: 100 * MIB,
    elapsedMs: 500,
    image: {
      path: "/tmp/demo.mfd",
      format: "stream",
      uuid: "3f0c6a52-2f0e-4c6a-9d4e-0f3a1d1b7a10",
      bytes: 101 * MIB,
      directIo,
      machine: "pc-q35-7.2",
      vmUuid: null,
      multifdChannels: channels,
      compression: null,
    },
    channels: [{ channel: "main", bytes: 2048, bytesPerSecond: 4096 }, ...rows],
  };
}

test("the plan says what is used, and why it lies where it lies", () => {
  expect(describeStep(PLAN)).toBe(`QEMU        7.2.22 with KVM
            /usr/bin/qemu-system-x86_64
guest       1.0 GiB of RAM, 4 multifd channels and main
RAM in      /dev/shm: tmpfs, 9.0 GiB free; needed twice, to compare
image in    /tmp: disk, 9.0 GiB free
            a real disk: in memory, O_DIRECT would mean nothing
`);
});

test("the plan says what is not as it should be", () => {
  const qemu = { ...PLAN.qemu, path: `${homedir()}/qemu` };
  const page = describeStep({
    ...PLAN,
    qemu,
    accelerator: "tcg",
    ramDirectory: DISK,
    imageDirectory: MEMORY,
  });
  expect(page).toContain("with TCG, as KVM cannot be used here\n            ~/qemu\n");
  expect(page).toContain("a disk, as no memory has room: slower than RAM");
  expect(page).toContain("in memory: no test of a disk or of O_DIRECT");
});

test("a save has a row for every channel", () => {
  expect(
    describeStep({ step: "saved", result: completed(2), diskBytes: 99 * MIB }),
  ).toBe(`saved       100.0 MiB in 0.5 s, 200.0 MiB/s
            written with O_DIRECT, flushed, sealed
            main           2.0 KiB     4.0 KiB/s
            channel 0      1.0 MiB     2.0 MiB/s
            channel 1      2.0 MiB     4.0 MiB/s
image       101.0 MiB, 99.0 MiB on disk, of a pc-q35-7.2 machine`);
});

test("a save without O_DIRECT says so", () => {
  const step = { step: "saved", result: completed(1, false), diskBytes: MIB } as const;
  expect(describeStep(step)).toContain("through the page cache: this file system refuses O_DIRECT");
});

test("many channels are told as a range, within 80 columns", () => {
  const page = describeStep({ step: "restored", result: completed(255) });
  expect(page).toContain("channels 0 to 254\n");
  expect(page).toContain("each 1.0 MiB to 255.0 MiB, 2.0 MiB/s to 510.0 MiB/s");
  for (const line of page.split("\n")) expect(line.length).toBeLessThanOrEqual(80);
});

test("RAM that differs cannot be overlooked", () => {
  const result = { pages: 262_144, differing: 3, firstDifferingPage: 17 };
  expect(describeStep({ step: "compared", result, elapsedMs: 400 })).toBe(
    "compared    262144 pages of RAM in 0.4 s: 3 DIFFER",
  );
});

test("after every step but the last something is being done", () => {
  const steps: readonly DemoStep[] = [
    PLAN,
    { step: "filled", elapsedMs: 1 },
    { step: "started", elapsedMs: 1 },
    { step: "saved", result: completed(1), diskBytes: 1 },
    { step: "restored", result: completed(1) },
  ];
  for (const step of steps) expect(doingAfter(step)).not.toBe("");
  expect(doingAfter({ step: "cleaned" })).toBe("");
});
