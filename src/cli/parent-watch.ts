import fs from "node:fs";
import type { Log } from "../control/options.ts";
import { hasEnded, openProcess } from "../io/libc.ts";

const LOOK_MS = 200;

/**
 * Calls `onEnd` once, within a fifth of a second after the process that started this one has ended. Not by
 * PR_SET_PDEATHSIG: that fires when the thread that started us ends, and managers start helpers from short-lived ones.
 * @returns ends the watch
 */
export function watchParent(onEnd: () => void, log: Log): () => void {
  const parent = process.ppid;
  const pidfd = openParent(parent, log);
  let open = true;
  const close = (): void => {
    if (!open) return;
    open = false;
    clearInterval(timer);
    if (pidfd !== null) fs.closeSync(pidfd);
  };
  // A child whose parent ends is given to another one: so a changed number tells of an end before the pidfd was opened.
  const timer = setInterval(() => {
    if (process.ppid === parent && (pidfd === null || !hasEnded(pidfd))) return;
    // Not at once: its last word may wait on stdin, and is read before an immediate runs.
    setImmediate(() => {
      if (!open) return;
      close();
      onEnd();
    });
  }, LOOK_MS);
  timer.unref();
  return close;
}

/** null where the system has no pidfds: the number alone has to do then, and of a parent in another pid namespace nothing does. */
function openParent(pid: number, log: Log): number | null {
  try {
    return openProcess(pid);
  } catch (error) {
    if (pid === 0) {
      log.warn({}, "the parent is in another pid namespace: --die-with-parent cannot notice its end");
    } else {
      log.debug({ parent: pid, reason: String(error) }, "the parent has no pidfd");
    }
    return null;
  }
}
