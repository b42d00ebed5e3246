import { magicOf } from "../../formats/image/state-page.ts";
import { MAGIC as IMAGE_MAGIC } from "../../formats/image/superblock.ts";
import { isLibvirtImage } from "../../formats/libvirt/header.ts";
import { isQemuStream } from "../../formats/mapped-ram/stream.ts";
import { MAPPED_RAM } from "../../formats/migration/configuration.ts";
import { MainWalker } from "../../formats/migration/main-stream.ts";
import type { Source } from "../../io/source.ts";
import { readFooter } from "../mapped-ram/open.ts";
import { refuseUnfinished } from "../mapped-ram/unfinished.ts";

/** Kinds of files; "stream" stands for our own format, and for what is none of them. */
export type FileKind = "stream" | "mapped-ram" | "qemu-stream" | "libvirt";

/** Says by its first bytes what a file is, or what begins somewhere in one. A configuration section fits into 4096 bytes. */
export function kindOf(head: Uint8Array): FileKind {
  if (isLibvirtImage(head)) return "libvirt";
  if (!isQemuStream(head)) return "stream";
  const walker = new MainWalker();
  try {
    walker.push(head);
    return walker.finish().capabilities.includes(MAPPED_RAM) ? "mapped-ram" : "qemu-stream";
  } catch {
    // Damaged already; whoever walks it says how.
    return "qemu-stream";
  }
}

/**
 * Says the same of an open file. One that ends with a footer of ours is a mapped-ram image, and a damaged one if it does not
 * begin like that.
 * @throws MultifdError NOT_SEALED for one that was never finished
 */
export async function kindOfFile(source: Source, head: Uint8Array): Promise<FileKind> {
  const kind = kindOf(head);
  if (kind === "libvirt" || kind === "mapped-ram" || magicOf(head) === IMAGE_MAGIC) return kind;
  if (kind === "stream") await refuseUnfinished(source, head);
  return (await hasFooter(source)) ? "mapped-ram" : kind;
}

async function hasFooter({ fd, base, available }: Source): Promise<boolean> {
  try {
    return (await readFooter({ fd, bytes: base + available }, base)) !== null;
  } catch {
    // It begins as one does; what is wrong with it, its reader says.
    return true;
  }
}
