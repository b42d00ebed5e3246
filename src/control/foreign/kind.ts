import { isLibvirtImage } from "../../formats/libvirt/header.ts";
import { isQemuStream } from "../../formats/mapped-ram/stream.ts";
import { MAPPED_RAM } from "../../formats/migration/configuration.ts";
import { MainWalker } from "../../formats/migration/main-stream.ts";

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
