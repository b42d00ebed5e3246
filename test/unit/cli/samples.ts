import type { CliEvent } from "../../../src/cli/events.ts";

/** All events, and the two kinds of completed. */
type Samples = {
  readonly [E in CliEvent as E extends { event: "completed"; checked: unknown }
    ? "completedVerify"
    : E extends { event: "completed"; differing: unknown }
      ? "completedDiff"
      : E["event"]]: Required<E>;
};

const CHANNELS = [
  { channel: "main", bytes: 4096, bytesPerSecond: 8192.5 },
  { channel: 254, bytes: 1_073_741_824, bytesPerSecond: 2_147_483_648 },
] as const;

const INSTANT = {
  runningMs: 12.5,
  pages: 65_536,
  pagesSent: 1024,
  pagesOnDemand: 96,
  pagesInBackground: 928,
  zeroPages: 3,
  faults: 7,
  faultMedianUs: 41,
  fault99Us: 85.5,
  faultLongestUs: 2300,
} as const;

/** One of each event with every field: a new field does not compile until it is here, and so in the schema. */
export const SAMPLES: Samples = {
  hello: { event: "hello", contract: 1, version: "0.1.0" },
  listening: { event: "listening", address: "tcp:127.0.0.1:4444" },
  channel: { event: "channel", channel: 0 },
  progress: {
    event: "progress",
    bytes: 10,
    bytesPerSecond: 20.25,
    elapsedMs: 500.5,
    totalBytes: 100,
    channels: CHANNELS.map(({ channel, bytes }) => ({ channel, bytes })),
    qemu: { status: "active", transferredBytes: 10, remainingBytes: 90, totalBytes: 100, passes: 1 },
    percent: 10.5,
    secondsLeft: 4.5,
    instant: INSTANT,
  },
  running: { event: "running", elapsedMs: 12.5 },
  vm: { event: "vm", state: "paused" },
  drained: {
    event: "drained",
    bytes: 1_073_745_920,
    elapsedMs: 500,
    evidence: { verdict: "undecided", reasons: ["main has no RAM END section"] },
    channels: CHANNELS,
  },
  completed: {
    event: "completed",
    bytes: 1_073_745_920,
    elapsedMs: 900,
    image: {
      path: "vm.mfd",
      format: "stream",
      uuid: "3f0c6a52-2f0e-4c6a-9d4e-0f3a1d1b7a10",
      bytes: 1_074_003_968,
      directIo: true,
      machine: "pc-q35-7.2",
      vmUuid: null,
      multifdChannels: 1,
      compression: "zstd",
    },
    channels: CHANNELS,
    instant: { ...INSTANT, runningMs: null },
    disks: [{ device: "disk0", base: "/vm.raw", overlay: "/vm.raw.snap-monday.qcow2" }],
  },
  verified: {
    event: "verified",
    bytes: 1_073_745_920,
    blocks: 1025,
    elapsedMs: 480,
    checked: "checksums and structure",
  },
  completedDiff: {
    event: "completed",
    bytes: 8192,
    elapsedMs: 10,
    image: { path: "vm.mfd" },
    other: { path: "vm.mr" },
    pages: 2,
    differing: 1,
    blocks: [{ name: "mem", pages: 2, differing: 1, firstDiffering: 4096 }],
    unmatched: ["pc.rom"],
  },
  completedVerify: {
    event: "completed",
    bytes: 1_073_745_920,
    elapsedMs: 480,
    image: { path: "vm.mfd" },
    checked: "structure only",
    blocks: 1025,
    resumed: {
      at: "2026-03-01T09:30:00.000Z",
      completed: null,
      session: "5e551011-0000-4000-8000-000000000003",
      qemu: { pid: 4711, startTicks: 123_456, bootId: "b0071d00-0000-4000-8000-000000000004" },
    },
  },
  started: { event: "started", name: "web", from: "image", pid: 4711 },
  failed: {
    event: "failed",
    code: "NO_SPACE",
    message: "there is no room",
    details: { path: "/x", errno: "ENOSPC", offset: 4096, retried: false, channel: null },
  },
};
