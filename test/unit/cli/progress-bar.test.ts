import { expect, test } from "vitest";
import {
  formatBytes,
  formatChannels,
  formatDuration,
  formatMoved,
  formatRate,
} from "../../../src/cli/format.ts";
import { describeProgress, ProgressBar } from "../../../src/cli/progress-bar.ts";

const GIB = 1024 ** 3;
const PROGRESS = {
  event: "progress",
  bytes: GIB / 2,
  bytesPerSecond: GIB,
  elapsedMs: 500,
  channels: [],
} as const;

test("figures are rounded for people", () => {
  expect(formatBytes(0)).toBe("0 B");
  expect(formatBytes(1023)).toBe("1023 B");
  expect(formatBytes(1024)).toBe("1.0 KiB");
  expect(formatBytes(1024 ** 2 - 1)).toBe("1.0 MiB");
  expect(formatBytes(1.5 * GIB)).toBe("1.5 GiB");
  expect(formatRate(12.4)).toBe("12 B/s");
  expect(formatDuration(900)).toBe("0.9 s");
  expect(formatDuration(59_960)).toBe("1 min 0 s");
  expect(formatDuration(75_000)).toBe("1 min 15 s");
  expect(formatDuration(3_600_000 + 120_000)).toBe("1 h 2 min");
  expect(formatChannels(0)).toBe("the main channel alone");
  expect(formatChannels(1)).toBe("main + 1 channel");
  expect(formatChannels(4)).toBe("main + 4 channels");
  const bytes = 2 ** 30;
  const channel = { channel: "main", bytes, bytesPerSecond: 1 } as const;
  expect(formatMoved({ bytes, channels: Array(5).fill(channel) }, "read")).toBe(
    "1.0 GiB over main + 4 channels",
  );
  expect(formatMoved({ bytes, channels: [] }, "written")).toBe("1.0 GiB, written by QEMU itself,");
});

test("a save shows bytes, rate and time, as its total is not known", () => {
  expect(describeProgress(PROGRESS)).toBe("512.0 MiB  1.0 GiB/s  0.5 s");
});

test("a restore shows its share and the time left", () => {
  expect(describeProgress({ ...PROGRESS, totalBytes: 2 * GIB })).toBe(
    "[######..................] 25 %  512.0 MiB  1.0 GiB/s  1.5 s left",
  );
});

test("a stalled restore does not promise a time, and a full bar is not exceeded", () => {
  expect(describeProgress({ ...PROGRESS, bytesPerSecond: 0, totalBytes: 2 * GIB })).not.toContain("left");
  expect(describeProgress({ ...PROGRESS, bytes: 3 * GIB, totalBytes: 2 * GIB })).toMatch(/^\[#{24}\] 100 %/);
});

test("the bar draws over itself, never wraps, and is erased once", () => {
  let screen = "";
  const bar = new ProgressBar({ columns: 20, write: (text) => (screen += text) });
  bar.clear();
  expect(screen).toBe("");
  bar.show(PROGRESS);
  expect(screen).toBe("\r\u001b[K512.0 MiB  1.0 GiB/");
  bar.clear();
  bar.clear();
  expect(screen).toBe("\r\u001b[K512.0 MiB  1.0 GiB/\r\u001b[K");
});
