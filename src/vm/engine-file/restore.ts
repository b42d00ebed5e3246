import fs from "node:fs";
import { refuseRanOn, reportMark } from "../../control/instant/ran-on.ts";
import { findMark } from "../../control/mapped-ram/resumed.ts";
import { checkBeforehand } from "../../control/mapped-ram/verify.ts";
import { withRestorable } from "../../control/opened-image.ts";
import type { RestoreOptions, RunOptions } from "../../control/options.ts";
import { MultifdError } from "../../errors.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import type { Settings } from "../settings.ts";
import { type FileForQemu, giveFile } from "./file-uri.ts";
import { probeMappedRam } from "./offers.ts";

export interface FileRestoreOptions extends RunOptions, Pick<RestoreOptions, "verify" | "force"> {
  /** Threads with which QEMU reads, 0..255, whatever they were at the save; 0: without multifd, and then without O_DIRECT. */
  readonly channels: number;
}

/** A restore that QEMU may begin, with these settings. finishFileRestore ends it, whatever became of it. */
export interface PreparedFileRestore extends Settings {
  /** For `migrate-incoming`. */
  readonly uri: string;
  readonly directIo: boolean;
  readonly file: FileForQemu;
}

/**
 * Checks the seal of a mapped-ram image, and with `verify: "first"` each of its pages, and hands it to a QEMU that waits
 * (`-incoming defer`). QEMU itself checks nothing: without "first" a damaged page reaches the VM. Of a file without
 * checksums only its structure is checked, and that no page is missing.
 * @throws MultifdError VM_RAN_ON, NOT_SEALED, IMAGE_DAMAGED, NOT_AN_IMAGE, QEMU_UNSUPPORTED, QEMU_FAILED, USAGE, IO …
 */
export async function prepareFileRestore(
  monitor: Monitor,
  options: FileRestoreOptions,
): Promise<PreparedFileRestore> {
  const offer = await probeMappedRam(monitor);
  return withRestorable<PreparedFileRestore>(options, refuseStreams, async (source, contents) => {
    refuseRanOn(reportMark(await findMark(source.fd, contents)), options);
    await checkBeforehand(options, source.fd, contents);
    const multifd = options.channels > 0;
    const directIo = source.directIo && multifd && offer.directIo;
    const request = { fd: source.fd, path: pathOf(options.image), mode: fs.constants.O_RDONLY };
    const file = await giveFile(monitor, { ...request, directIo, offset: contents.stream.base });
    return {
      capabilities: offer.capabilities(multifd),
      parameters: {
        ...(multifd ? { "multifd-channels": options.channels } : {}),
        ...(offer.directIo ? { "direct-io": directIo } : {}),
      },
      ...{ uri: file.uri, directIo, file },
    };
  });
}

/** Takes the file back from QEMU, once it has loaded it or failed to. */
export async function finishFileRestore({ file }: PreparedFileRestore): Promise<void> {
  await file.release();
}

function pathOf(image: string): string | null {
  return image.startsWith("fd:") ? null : fs.realpathSync(image);
}

async function refuseStreams(): Promise<never> {
  throw unreadable();
}

/** Of an image that is for the helper's engine. */
export function unreadable(): MultifdError {
  const text =
    "this image holds the streams of a migration, which QEMU cannot read from a file: use --engine helper";
  return new MultifdError("USAGE", text);
}
