import { isLibvirtImage } from "../../formats/libvirt/header.ts";
import { isQemuStream } from "../../formats/mapped-ram/stream.ts";
import { MAPPED_RAM } from "../../formats/migration/configuration.ts";
import { MainWalker } from "../../formats/migration/main-stream.ts";
import type { Source } from "../../io/source.ts";
import { readFooter } from "../mapped-ram/open.ts";
import { openFileOf } from "../mapped-ram/report.ts";

/** Kinds of files; "stream" stands for our own format, and for what is none of them. */
export type FileKind = "stream" | "mapped-ram" | "qemu-stream" | "libvirt";

/**
 * Says by its first bytes what a file is, or what begins somewhere in one. A configuration section fits into 4096 bytes.
 * What ends with a footer of ours is mapped-ram even if its configuration no longer says so: its checksums tell the damage.
 * @throws MultifdError IMAGE_DAMAGED, UNSUPPORTED_VERSION (the footer), IO
 */
export async function kindOf(source: Source, head: Uint8Array): Promise<FileKind> {
  if (isLibvirtImage(head)) return "libvirt";
  if (!isQemuStream(head)) return "stream";
  if ((await readFooter(openFileOf(source), source.base)) !== null) return "mapped-ram";
  const walker = new MainWalker();
  try {
    walker.push(head);
    return walker.finish().capabilities.includes(MAPPED_RAM) ? "mapped-ram" : "qemu-stream";
  } catch {
    // Damaged already; whoever walks it says how.
    return "qemu-stream";
  }
}
