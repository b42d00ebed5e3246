import fs from "node:fs";
import type { CompletedEvent } from "../../control/events.ts";
import { SILENT } from "../../control/silent-log.ts";
import { type ErrorCode, MultifdError, toFailure } from "../../errors.ts";
import type { LaunchedQemu, LaunchOptions } from "../restore/launch.ts";
import { restoreLaunched } from "../restore/restore-launched.ts";
import type { RestoreVmOptions } from "../restore/restore-vm.ts";
import { boot, type KnownLaunch } from "./boot.ts";
import { Claim } from "./claim.ts";
import { type ManagedPlace, managedPlace, monitorArguments } from "./directory.ts";
import { forgetImage } from "./forget.ts";
import { withManagedLock } from "./lock.ts";
import { readRecord, writeRecord } from "./record.ts";
import { isListening } from "./running.ts";

export interface ManagedStartOptions
  extends Omit<RestoreVmOptions, "image" | "offset" | "beforeRun">,
    Omit<LaunchOptions, "command" | "cwd"> {
  readonly name: string;
  /** Default: /var/lib/multifd-helper for root, $XDG_STATE_HOME/multifd-helper for everybody else. */
  readonly stateDirectory?: string | undefined;
  /** QEMU and its arguments, without -incoming; those of the last start when left out. */
  readonly command?: readonly string[] | undefined;
  /** Forgets a managed image, whatever state it is in, and boots. */
  readonly discard?: boolean | undefined;
  /** Called before a restored VM is let run, or when a booted one answers: what throws here ends it. */
  readonly beforeRun?: ((qemu: LaunchedQemu) => Promise<void>) | undefined;
}

/** A VM that was started, and its QEMU. */
export interface StartedVm {
  readonly qemu: LaunchedQemu;
  /** How the restore went; null: there was no managed image, and the VM was booted. */
  readonly completed: CompletedEvent | null;
}

/**
 * Starts a VM from its managed image, or boots it where there is none. The image is used at most once: it is gone when
 * the VM runs, and one of a start that was killed at that moment is never used again by itself.
 * QEMU gets a monitor of its own in the state directory, for the next managed save.
 * @throws MultifdError USAGE, TARGET_BUSY (somebody works on this name), VM_STATE (it runs), MANAGED_STATE (it may have run
 *   from this image), IO, and what restoreLaunched() throws
 */
export async function managedStart(options: ManagedStartOptions): Promise<StartedVm> {
  const place = managedPlace(options.name, options.stateDirectory);
  return await withManagedLock(place, async () => {
    await refuseRunning(place);
    const launch = launchOptions(place, options);
    if (options.discard) await forgetImage(place);
    refuseLeftover(place);
    try {
      if (!fs.existsSync(place.image))
        return { qemu: await boot(place, { ...options, image: place.image }, launch), completed: null };
      return await restoreOnce(place, options, launch);
    } catch (error) {
      await removeMonitor(place);
      throw error;
    }
  });
}

/** A QEMU that was killed leaves its socket. */
async function removeMonitor({ qmp }: ManagedPlace): Promise<void> {
  if (!(await isListening(qmp))) fs.rmSync(qmp, { force: true });
}

async function refuseRunning({ name, qmp }: ManagedPlace): Promise<void> {
  if (!(await isListening(qmp))) return;
  throw new MultifdError("VM_STATE", `${name} runs already: its monitor is ${qmp}`, { path: qmp });
}

function launchOptions(place: ManagedPlace, options: ManagedStartOptions): KnownLaunch {
  const { detached, stdoutToStderr } = options;
  const given =
    options.command === undefined ? readRecord(place) : { command: options.command, cwd: process.cwd() };
  if (given === null || given.command.length === 0) {
    const text = `nothing tells how ${place.name} is started: start ${place.name} -- qemu-system-x86_64 ARGS…`;
    throw new MultifdError("USAGE", text);
  }
  return { command: given.command, cwd: given.cwd, detached, stdoutToStderr };
}

function refuseLeftover({ name, image, resuming }: ManagedPlace): void {
  if (!fs.existsSync(resuming)) return;
  const text = `${resuming} may have run already: a start was killed when it let it run. start ${name} --discard forgets it and boots the VM; if you know that it never ran, rename it to ${image}`;
  throw new MultifdError("MANAGED_STATE", text, { path: resuming });
}

async function restoreOnce(
  place: ManagedPlace,
  options: ManagedStartOptions,
  launch: KnownLaunch,
): Promise<StartedVm> {
  const { log = SILENT } = options;
  const claim = new Claim(place);
  try {
    const launched = await restoreLaunched({
      ...options,
      ...launch,
      command: [...launch.command, ...monitorArguments(place)],
      image: place.image,
      beforeRun: async (qemu) => {
        await options.beforeRun?.(qemu);
        writeRecord(place, launch.command, launch.cwd);
        claim.take(options.signal);
      },
    });
    spend(claim, place, (text) => log.warn({}, text));
    return launched;
  } catch (error) {
    throw claim.taken ? afterClaim(error, claim, place) : beforeClaim(error, place);
  }
}

/** The VM runs, and nothing takes that back. */
function spend(claim: Claim, { name }: ManagedPlace, warn: (text: string) => void): void {
  try {
    claim.spend();
  } catch (error) {
    const { message } = toFailure(error);
    warn(`${name} runs, but ${message}; managed-remove ${name} removes it`);
  }
}

/** What keeps an image from ever being restored by a start. */
const LOST: readonly ErrorCode[] = ["NOT_AN_IMAGE", "NOT_SEALED", "IMAGE_DAMAGED", "VM_RAN_ON"];

/** The image is untouched. */
function beforeClaim(error: unknown, { name }: ManagedPlace): unknown {
  if (!(error instanceof MultifdError) || !LOST.includes(error.code)) return error;
  const text = `${error.message}; start ${name} --discard forgets this managed image and boots the VM`;
  return new MultifdError(error.code, text, error.details, error);
}

/** Only where QEMU itself refused to let the VM run, it has certainly not run. */
function afterClaim(error: unknown, claim: Claim, { name, resuming }: ManagedPlace): unknown {
  const { code, message, details } = toFailure(error);
  const refused = details.class !== undefined;
  try {
    if (refused) claim.giveBack();
  } catch (failure) {
    const text = `${message}; and ${toFailure(failure).message}: do that by hand`;
    return new MultifdError(code, text, details, error);
  }
  if (refused) return error;
  const text = `${message}; ${name} may have run for a moment, so that its image is kept as ${resuming} and not restored again`;
  return new MultifdError(code, text, { ...details, path: resuming }, error);
}
