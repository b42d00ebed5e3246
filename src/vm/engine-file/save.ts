import { randomUUID } from "node:crypto";
import fs from "node:fs";
import type { ImageFacts } from "../../control/events.ts";
import { refuseAwaited } from "../../control/instant/refuse-awaited.ts";
import { sealMapped } from "../../control/mapped-ram/seal.ts";
import type { Log, RunOptions, SavedVm, SaveOptions } from "../../control/options.ts";
import { SILENT } from "../../control/silent-log.ts";
import { Space } from "../../control/space.ts";
import { MultifdError } from "../../errors.ts";
import { flush, shrink } from "../../io/image-target/durability.ts";
import { openTarget } from "../../io/image-target/open.ts";
import type { Target } from "../../io/image-target/target.ts";
import { openFlags } from "../../io/libc.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import type { Settings } from "../settings.ts";
import { type FileForQemu, giveFile } from "./file-uri.ts";
import { probeMappedRam } from "./offers.ts";

export interface FileSaveOptions
  extends RunOptions,
    Pick<SaveOptions, "checksum" | "expectBytes" | "force" | "meta" | "rate" | "replace"> {
  /** Threads with which QEMU writes, 0..255; 0: without multifd, and then without O_DIRECT. */
  readonly channels: number;
}

const O_ACCMODE = 3;

/** A save that QEMU may begin, with these settings. Exactly one of finishFileSave and abandonFileSave ends it. */
export interface PreparedFileSave extends Settings {
  /** For `migrate`. */
  readonly uri: string;
  readonly directIo: boolean;
  readonly options: FileSaveOptions;
  readonly target: Target;
  readonly file: FileForQemu;
  readonly identity: { readonly uuid: string; readonly createdMs: number };
}

/** What a finished save left on disk. */
export interface FileSaved {
  readonly image: ImageFacts;
  /** Bytes of the stream and of the pages that are present. */
  readonly bytes: number;
}

/**
 * Gets everything ready for QEMU to write a mapped-ram file itself: sees that it can, opens the target as any save does,
 * and hands it to QEMU. Nothing of QEMU is changed but an fdset. Ask after the VM's own settings were made harmless.
 * @throws MultifdError QEMU_UNSUPPORTED, QEMU_FAILED, NO_SPACE, TARGET_REFUSED, TARGET_BUSY, DIRECT_IO_REFUSED, IO …
 */
export async function prepareFileSave(monitor: Monitor, options: FileSaveOptions): Promise<PreparedFileSave> {
  const log = options.log ?? SILENT;
  const offer = await probeMappedRam(monitor);
  const multifd = options.channels > 0;
  await refuseAwaited(options);
  const target = await openTarget({
    image: options.image,
    offset: options.offset ?? 0,
    directIo: directIoFor(options, offer.directIo),
    onNote: (note) => log.warn({}, note),
  });
  try {
    refuseUnfit(target, options.image);
    await lookAtSpace(monitor, target, options, log);
    await emptyFromBase(target);
    const { directIo, base } = target;
    const path = target.path;
    const file = await giveFile(monitor, {
      fd: target.fd,
      path,
      mode: fs.constants.O_WRONLY,
      directIo,
      offset: base,
    });
    return {
      capabilities: offer.capabilities(multifd),
      parameters: {
        ...(multifd ? { "multifd-channels": options.channels } : {}),
        ...(offer.directIo ? { "direct-io": directIo } : {}),
        "max-bandwidth": options.rate ?? 0,
      },
      ...{ uri: file.uri, directIo, options, target, file },
      identity: { uuid: randomUUID(), createdMs: Date.now() },
    };
  } catch (error) {
    await target.discard();
    throw error;
  }
}

/**
 * To be called when QEMU calls the migration completed: reads the file back, seals and publishes it. Until it returns the
 * VM must not be ended. What fails leaves an earlier image as it was, and this save is over then, too.
 * @param vm what QMP told of the VM
 * @throws MultifdError QEMU_FAILED (no whole stream), IO (a page was never written), NO_SPACE, CANCELLED
 */
export async function finishFileSave(
  { options, target, file, identity }: PreparedFileSave,
  vm: SavedVm | null,
  vmUuid: string | null,
): Promise<FileSaved> {
  let sealed: Awaited<ReturnType<typeof sealMapped>>;
  try {
    await file.release();
    sealed = await sealMapped(target, identity, { ...options, vm, vmUuid });
  } catch (error) {
    await giveUp(target);
    throw error;
  }
  await target.publish();
  const { footer, metadata, bytes } = sealed;
  return {
    bytes,
    image: {
      path: options.image,
      format: "mapped-ram",
      uuid: identity.uuid,
      bytes: footer.seal.imageEnd - footer.seal.base,
      directIo: target.directIo,
      machine: metadata.machine,
      vmUuid: metadata.vmUuid,
      multifdChannels: 0,
      compression: null,
    },
  };
}

/** Gives a save up: the fdset and what was written are gone, and an earlier image is as it was. QEMU must not be writing any more. */
export async function abandonFileSave({ target, file }: PreparedFileSave): Promise<void> {
  try {
    await file.release();
  } finally {
    await giveUp(target);
  }
}

/** Behind a manager's header, too, nothing may stay that looks like a stream: QEMU would begin to load it. */
async function giveUp(target: Target): Promise<void> {
  try {
    shrink(target.fd, target.base);
  } catch {
    // Why the save failed is what counts; and without a footer it is no image either way.
  }
  await target.discard();
}

/**
 * QEMU uses O_DIRECT for its multifd threads alone. Where the file system refuses it, 10.0.2 dies of SIGSEGV: openTarget
 * has tried it before QEMU is told.
 */
function directIoFor(
  { channels, directIo = "auto" }: FileSaveOptions,
  offered: boolean,
): "auto" | "on" | "off" {
  if (channels > 0 && offered) return directIo;
  if (directIo !== "on") return "off";
  const why = offered ? "it writes with O_DIRECT in multifd channels only" : "it has no parameter direct-io";
  throw new MultifdError(
    "QEMU_UNSUPPORTED",
    `QEMU cannot write with O_DIRECT: ${why}; use --direct-io auto`,
    {},
  );
}

function refuseUnfit(target: Target, image: string): void {
  let why: string;
  if (target.capacity !== null)
    why = "is a block device, which QEMU, that truncates its target, cannot save to";
  else if ((openFlags(target.fd) & O_ACCMODE) === fs.constants.O_WRONLY) {
    why = "is open for writing only, but what QEMU wrote has to be read back";
  } else return;
  throw new MultifdError("TARGET_REFUSED", `${image} ${why}: use a file, or --engine helper`, {});
}

async function lookAtSpace(
  monitor: Monitor,
  target: Target,
  options: FileSaveOptions,
  log: Log,
): Promise<void> {
  const space = new Space(target, options, log);
  const memory = (await monitor.execute("query-memory-size-summary")) as Record<string, number>;
  space.noteRam((memory["base-memory"] ?? 0) + (memory["plugged-memory"] ?? 0));
  if (options.replace === true) target.giveUpEarlier();
}

/** An image that stood behind a manager's header is none from here on; QEMU would cut it off all the same. */
async function emptyFromBase({ fd, base }: Target): Promise<void> {
  shrink(fd, base);
  await flush(fd);
}
