import type { RunEvent } from "./events.ts";
import type { RunOptions } from "./options.ts";
import { SILENT } from "./silent-log.ts";

/** Tells the user's listener what happens. Its failures are its own: they are logged, and the run goes on. */
export function teller({
  onEvent,
  log = SILENT,
}: Pick<RunOptions, "onEvent" | "log">): (event: RunEvent) => void {
  return (event) => {
    try {
      onEvent?.(event);
    } catch (error) {
      log.error({ event: event.event, error: String(error) }, "a listener of events threw: the run goes on");
    }
  };
}
