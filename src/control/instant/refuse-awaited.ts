import { MultifdError } from "../../errors.ts";
import { decodeFooter, FOOTER_BYTES, footerOffset } from "../../formats/mapped-ram/footer.ts";
import { readAligned } from "../../io/file-io.ts";
import { openSource } from "../../io/source.ts";
import { endOfUnsealed, type FoundMark, findMark } from "../mapped-ram/resumed.ts";
import type { RunOptions, TransferOptions } from "../options.ts";
import { SILENT } from "../silent-log.ts";
import { fateOf } from "./identity.ts";
import { reportMark } from "./ran-on.ts";

/**
 * Refuses to write over an image, or to remove it, out of which a VM is still to get RAM: the helper that sent it is gone, and
 * nothing but the mark tells. Whether there is an image at all is for others to say.
 * @throws MultifdError TARGET_BUSY
 */
export async function refuseAwaited(
  options: Pick<RunOptions, "image" | "offset" | "log"> & Pick<TransferOptions, "force">,
): Promise<void> {
  const { image, offset = 0, force, log = SILENT } = options;
  const resumed = reportMark(await peekMark(image, offset).catch(() => null));
  if (resumed === null || resumed.at === null || resumed.completed !== null) return;
  const fate = fateOf(resumed.qemu);
  if (fate === "gone") return;
  const since = `the VM that an instant restore let run from ${image} at ${resumed.at}`;
  const details = { image, pid: resumed.qemu?.pid ?? null };
  if (fate === "alive") {
    const text = `${since} (QEMU, process ${details.pid}) has not got all of its RAM yet: complete that with restore --resume --qmp PATH, end that VM, or choose another path`;
    throw new MultifdError("TARGET_BUSY", text, details);
  }
  const text = `${since} may not have got all of its RAM yet: complete that with restore --resume, choose another path, or use --force if that VM is gone`;
  if (force !== true) throw new MultifdError("TARGET_BUSY", text, details);
  log.warn(details, `${text}; going on because of --force`);
}

/** Looks for the mark alone: opening an image would mean to read all of QEMU's stream. */
async function peekMark(image: string, offset: number): Promise<FoundMark> {
  const source = await openSource({ image, offset, directIo: "off", onNote: () => undefined });
  try {
    const { fd, base } = source;
    const bytes = base + source.available;
    const at = footerOffset(bytes);
    const footer = at < base ? null : decodeFooter(await readAligned(fd, at, FOOTER_BYTES));
    if (footer === null) {
      return await findMark(fd, { stream: { end: await endOfUnsealed({ fd, bytes }, base) }, seal: null });
    }
    if (footer.seal === null) return null;
    const { streamEnd, imageEnd } = footer.seal;
    return await findMark(fd, { stream: { end: streamEnd }, seal: { imageUuid: footer.uuid, imageEnd } });
  } finally {
    source.close();
  }
}
