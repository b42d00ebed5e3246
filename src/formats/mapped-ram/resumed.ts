import type { Buffer } from "node:buffer";
import { damaged } from "../image/damage.ts";
import { SUPERBLOCK_BYTES } from "../image/model.ts";
import {
  decodeStatePage,
  encodeStatePage,
  magicOf,
  type StatePageKind,
  UUID_BYTES,
  uuidBytes,
  uuidText,
} from "../image/state-page.ts";
import { readTime, readU64, viewOf, writeU64 } from "../image/u64.ts";
import { FOOTER_BYTES, type Seal } from "./footer.ts";

/** The page in which an instant restore writes down that the VM runs on from here: the one before the footer, if there is one. */
export const MARK_BYTES: number = SUPERBLOCK_BYTES;

/** Where it lies in a sealed image: what is sealed is never written again. */
export function markOffset({ imageEnd }: Pick<Seal, "imageEnd">): number {
  return imageEnd - FOOTER_BYTES - MARK_BYTES;
}

const MARK: StatePageKind = { what: "resumed mark", magic: "MFDMLIVE", version: 1 };
// Offsets of docs/formats/mapped-ram.md, "Resumed mark". What stands before the first one state-page.ts reads.
const AT = {
  resumed: 40,
  completed: 48,
  streamEnd: 56,
  session: 64,
  pid: 80,
  startTicks: 88,
  bootId: 96,
} as const;

/** A process of this host that no later one can be taken for. */
export interface QemuIdentity {
  readonly pid: number;
  /** Clock ticks between the host's boot and the start of the process (proc(5), stat, field 22). */
  readonly startTicks: number;
  /** UUID of that boot. */
  readonly bootId: string;
}

/** That an instant restore let the VM run, and its disks with it. */
export interface ResumedMark {
  /** When it was about to, in milliseconds since the epoch. */
  readonly resumedMs: number;
  /** When QEMU had all of the image; null: it has not, as far as is known. */
  readonly completedMs: number | null;
  /** UUID of the restore. */
  readonly session: string;
  /** Who has the VM; null: nobody could tell, as over tcp. */
  readonly qemu: QemuIdentity | null;
}

/** What a mark belongs to, so that it cannot be taken for another image's. */
export interface MarkedImage {
  /** UUID of the image; null: it has no seal. */
  readonly uuid: string | null;
  /** Behind the last byte that QEMU wrote. */
  readonly streamEnd: number;
}

/** What an image without a seal is called. */
const NO_IMAGE = "00000000-0000-0000-0000-000000000000";

/** @returns 4096 bytes */
export function encodeMark(mark: ResumedMark, { uuid, streamEnd }: MarkedImage): Buffer {
  const { resumedMs, completedMs, session, qemu } = mark;
  const state = completedMs === null ? "writing" : "sealed";
  return encodeStatePage(MARK, { state, uuid: uuid ?? NO_IMAGE, createdMs: resumedMs }, (view) => {
    const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
    writeU64(view, AT.completed, completedMs ?? 0);
    writeU64(view, AT.streamEnd, streamEnd);
    bytes.set(uuidBytes(session), AT.session);
    if (qemu === null) return;
    view.setUint32(AT.pid, qemu.pid);
    writeU64(view, AT.startTicks, qemu.startTicks);
    bytes.set(uuidBytes(qemu.bootId), AT.bootId);
  });
}

/** Whether this is a mark, of whatever image, and whole or not. */
export function isMark(bytes: Uint8Array): boolean {
  return magicOf(bytes) === MARK.magic;
}

/** A mark, and the image that it names. Throws IMAGE_DAMAGED (it is not whole), UNSUPPORTED_VERSION. */
export function openMark(bytes: Uint8Array): { readonly mark: ResumedMark; readonly image: MarkedImage } {
  if (!isMark(bytes)) throw damaged(`${MARK.what} byte 0`, `it does not begin with "${MARK.magic}"`);
  const { state, uuid } = decodeStatePage(MARK, bytes);
  const view = viewOf(bytes);
  const numberAt = (at: number): number => readU64(view, at, MARK.what);
  const uuidAt = (at: number): string => uuidText(bytes.subarray(at, at + UUID_BYTES));
  const pid = view.getUint32(AT.pid);
  return {
    mark: {
      resumedMs: readTime(view, AT.resumed, MARK.what),
      completedMs: state === "sealed" ? readTime(view, AT.completed, MARK.what) : null,
      session: uuidAt(AT.session),
      qemu: pid === 0 ? null : { pid, startTicks: numberAt(AT.startTicks), bootId: uuidAt(AT.bootId) },
    },
    image: { uuid: uuid === NO_IMAGE ? null : uuid, streamEnd: numberAt(AT.streamEnd) },
  };
}

/**
 * Reads the page that is reserved for the mark of an image.
 * @returns null where nothing was written to it
 * @throws MultifdError IMAGE_DAMAGED (a mark that is not whole, or another image's), UNSUPPORTED_VERSION
 */
export function decodeMark(bytes: Uint8Array, { uuid, streamEnd }: MarkedImage): ResumedMark | null {
  if (bytes.every((byte) => byte === 0)) return null;
  const { mark, image } = openMark(bytes);
  if (image.uuid === uuid && image.streamEnd === streamEnd) return mark;
  throw damaged(`${MARK.what} byte 24`, `it is that of another image (${image.uuid ?? "without a seal"})`);
}
