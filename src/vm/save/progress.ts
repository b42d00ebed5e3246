import type { QemuFigures, RunEvent } from "../../control/events.ts";

/** What both sides know: ours counts bytes in the image, QEMU's knows how much is to come. */
export function withQemu(event: Extract<RunEvent, { event: "progress" }>, qemu: QemuFigures): RunEvent {
  const { remainingBytes, totalBytes } = qemu;
  const done = totalBytes - remainingBytes;
  return {
    ...event,
    qemu,
    ...(totalBytes === 0 ? {} : { percent: Math.round((1000 * done) / totalBytes) / 10 }),
    ...(event.bytesPerSecond === 0
      ? {}
      : { secondsLeft: Math.round((10 * remainingBytes) / event.bytesPerSecond) / 10 }),
  };
}
