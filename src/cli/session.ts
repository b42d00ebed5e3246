import type { RunEvent } from "../control/events.ts";
import type { Log } from "../control/options.ts";
import { MultifdError, toFailure } from "../errors.ts";
import type { LogFlags } from "./logging.ts";
import type { Output } from "./output.ts";
import { cancelOnSignals } from "./signals.ts";

/** What a run of the library gets from the command line around it. */
export interface Session {
  readonly signal: AbortSignal;
  readonly onEvent: (event: RunEvent) => void;
  readonly log: Log;
  /** Ends the run with this failure; the library rejects with it after cleaning up. */
  readonly cancel: (reason: MultifdError) => void;
  /** From now on the run outlives the manager, whatever --die-with-parent said. */
  readonly outliveParent: () => void;
}

export interface SessionFlags extends LogFlags {
  readonly dieWithParent?: true;
}

/** Runs `work` with log, events and cancellation in place. Rejects with what it rejects with. */
export async function runSession<T>(
  output: Output,
  flags: SessionFlags,
  work: (session: Session) => Promise<T>,
): Promise<T> {
  checkDirectory();
  const controller = new AbortController();
  const cancel = (reason: MultifdError): void => controller.abort(reason);
  cancelOnSignals(cancel);
  output.start();
  const { openLog } = await import("./logging.ts");
  const log = openLog(flags, () => output.yieldTerminal());
  cancelOnDefect(cancel, log);
  const outliveParent = flags.dieWithParent ? await cancelWithParent(cancel, log) : (): void => undefined;
  const onEvent = (event: RunEvent): void => forward(event, output);
  try {
    return await work({ signal: controller.signal, onEvent, log, cancel, outliveParent });
  } catch (error) {
    logFailure(error, log);
    throw error;
  } finally {
    outliveParent();
  }
}

/** In a directory that was removed no worker thread can start, and that would show only when QEMU has connected. */
function checkDirectory(): void {
  try {
    process.cwd();
  } catch (error) {
    const text = "the current directory does not exist any more: start multifd-helper in one that does";
    throw new MultifdError("USAGE", text, {}, error);
  }
}

async function cancelWithParent(cancel: (reason: MultifdError) => void, log: Log): Promise<() => void> {
  const { watchParent } = await import("./parent-watch.ts");
  const reason = "the process that started this one has ended";
  return watchParent(() => cancel(new MultifdError("ABORTED", `${reason}; the run is given up`)), log);
}

/** `completed` is told from the result, once the library has returned and nothing can go wrong any more. */
function forward(event: RunEvent, output: Output): void {
  if (event.event !== "completed") output.event(event);
}

/** An exception that nobody caught still has to release QEMU and remove the temporary image. */
function cancelOnDefect(cancel: (reason: MultifdError) => void, log: Log): void {
  process.on("uncaughtException", (error) => {
    const { message, stack } = toFailure(error);
    log.error({ stack }, "an exception was not caught");
    cancel(new MultifdError("INTERNAL", `an exception was not caught: ${message}`, {}, error));
  });
}

/** The sentence goes to stderr anyway: the log adds what a developer needs, and is complete in a log file. */
function logFailure(error: unknown, log: Log): void {
  const { code, message, details, stack } = toFailure(error);
  if (code === "INTERNAL" || code === "WORKER_DIED") log.error({ code, details, stack }, message);
  else log.info({ code, details }, message);
}
