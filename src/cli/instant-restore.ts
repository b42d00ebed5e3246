import { MultifdError } from "../errors.ts";
import type { CompletedEvent, RestoreVmOptions, RunEvent } from "../index.ts";
import type { InstantVmOptions } from "../vm/instant/options.ts";
import { hostPages, type InstantFlags, instantOptions } from "./instant-options.ts";
import { instantSentence } from "./instant-words.ts";
import { launchOptions } from "./launch-options.ts";
import { type TransferFlags, transferOptions } from "./options.ts";
import type { Output } from "./output.ts";
import { type QemuRestoreFlags, qemuRestoreOptions } from "./qemu-options.ts";
import { runSession, type Session } from "./session.ts";
import { stayWith } from "./stay.ts";

export interface InstantRestoreFlags extends TransferFlags, QemuRestoreFlags, InstantFlags {
  readonly connect?: string;
  readonly expect?: RestoreVmOptions["expect"];
  readonly verify?: "first" | "blocks" | "lazy";
}

/** `restore --instant` and `restore --resume`. @returns the exit status */
export async function restoreAtOnce(
  image: string,
  qemu: readonly string[],
  flags: InstantRestoreFlags,
  output: Output,
): Promise<number> {
  return await runSession(output, flags, async (session) => {
    const launches = qemu.length > 0;
    const onEvent = tellingPeople(session, output, launches && !flags.detach && !flags.json);
    const options = instantVmOptions(image, flags, { ...session, onEvent });
    if (launches) return await launch(qemu, options, flags, session, output);
    const completed = await serve(options, flags);
    output.completed(completed, `${instantSentence(verbOf(flags), completed)}.`);
    return 0;
  });
}

function verbOf({ connect, resume }: InstantRestoreFlags): string {
  if (connect !== undefined) return "Delivered";
  return resume ? "Resumed" : "Restored";
}

/** A QEMU that is there. */
async function serve(options: InstantVmOptions, flags: InstantRestoreFlags): Promise<CompletedEvent> {
  const { connect, qmp = "", resume } = flags;
  if (connect !== undefined) {
    const { restoreInstant } = await import("../control/instant/instant.ts");
    return await restoreInstant({ ...options, connect, resume, hostPages: hostPages(flags) });
  }
  if (resume) {
    const { resumeInstant } = await import("../vm/instant/resume-instant.ts");
    return await resumeInstant({ ...options, vm: { qmp } });
  }
  const { restoreVmInstant } = await import("../vm/instant/restore-instant.ts");
  return await restoreVmInstant({ ...options, vm: { qmp } });
}

/** Starts QEMU, and stays with it unless it is to live on by itself: then until it has all its RAM. */
async function launch(
  command: readonly string[],
  options: InstantVmOptions,
  flags: InstantRestoreFlags,
  session: Session,
  output: Output,
): Promise<number> {
  const { detach = false } = flags;
  const { restoreLaunchedInstant } = await import("../vm/instant/launched-instant.ts");
  const { qemu, completed } = await restoreLaunchedInstant({
    ...options,
    ...launchOptions(command, flags),
  });
  const exit = detach ? 0 : stayWith(qemu, session);
  try {
    const event = await completed;
    output.completed(event, `${instantSentence("Restored", event)}. QEMU is process ${qemu.pid}.`);
  } catch (error) {
    if (detach || !(error instanceof MultifdError && error.details.ended === true)) throw error;
    // Its end is the VM's own affair, also before it had all its RAM.
    output.event({ event: "vm", state: "ended" });
  }
  return await exit;
}

function instantVmOptions(image: string, flags: InstantRestoreFlags, session: Session): InstantVmOptions {
  const { rate: _rate, stallTimeoutMs: _stall, ...options } = transferOptions(image, flags, session);
  const { uuid, run } = qemuRestoreOptions(flags);
  const { expect, verify } = flags;
  return {
    ...options,
    ...instantOptions(flags),
    ...{ uuid, run, expect, verify: verify === "blocks" ? undefined : verify },
  };
}

/** @param foreground once its VM is there, QEMU has the terminal */
function tellingPeople({ onEvent }: Session, output: Output, foreground: boolean): (event: RunEvent) => void {
  let there = false;
  return (event) => {
    if (!(foreground && there && event.event === "progress")) onEvent(event);
    if (event.event !== "vm" || (event.state !== "running" && event.state !== "paused")) return;
    there = true;
    output.tell(`The VM is ${event.state}, and its RAM follows.`, "");
  };
}
