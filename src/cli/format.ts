import type { CompletedEvent } from "../control/events.ts";

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"] as const;

/** 1610612736 -> "1.5 GiB". */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  // 1023.95 would be rounded to 1024.0.
  while (value >= 1023.95 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return unit === 0 ? `${Math.round(value)} B` : `${value.toFixed(1)} ${UNITS[unit]}`;
}

export function formatRate(bytesPerSecond: number): string {
  return `${formatBytes(bytesPerSecond)}/s`;
}

/** 900 -> "0.9 s", 75 000 -> "1 min 15 s". */
export function formatDuration(ms: number): string {
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${seconds % 60} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** How an image's bytes went: "1.0 GiB over main + 4 channels", or "1.0 GiB, read by QEMU itself,". */
export function formatMoved(
  { bytes, channels }: Pick<CompletedEvent, "bytes" | "channels">,
  qemuDid: "written" | "read",
): string {
  // Where QEMU moves the bytes, there are no channels.
  return channels.length === 0
    ? `${formatBytes(bytes)}, ${qemuDid} by QEMU itself,`
    : `${formatBytes(bytes)} over ${formatChannels(channels.length - 1)}`;
}

/** "main + 4 channels". */
export function formatChannels(multifdChannels: number): string {
  if (multifdChannels === 0) return "the main channel alone";
  return `main + ${multifdChannels} channel${multifdChannels === 1 ? "" : "s"}`;
}
