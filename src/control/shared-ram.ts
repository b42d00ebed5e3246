import type { MainSummary } from "../formats/migration/summary.ts";
import type { Log } from "./options.ts";

/** With x-ignore-shared QEMU leaves shared RAM out of the stream: a save that is whole, of a guest that is not in it. */
export function warnOfSharedRam(main: MainSummary, log: Log): void {
  if (!main.capabilities.includes("x-ignore-shared")) return;
  const text =
    "the capability x-ignore-shared was on: RAM that QEMU shares with others is not in this image; keep its memory file unchanged for the restore, or save again without the capability";
  log.warn({ capability: "x-ignore-shared" }, text);
}
