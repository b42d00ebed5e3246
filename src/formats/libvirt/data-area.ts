import { Buffer } from "node:buffer";
import { MultifdError } from "../../errors.ts";
import { alignUp } from "../image/align.ts";
import { damaged } from "../image/damage.ts";
import { encodeLibvirtHeader, HEADER_BYTES, type LibvirtHeader, MAX_DATA_BYTES } from "./header.ts";

/** What libvirt leaves free so that `virsh save-image-edit` can make the XML longer. */
const ROOM_BYTES: number = 64 * 1024;

/** What stands between libvirt's header and the stream. */
export interface LibvirtData {
  /** The domain, with its passwords; `virsh save-image-dumpxml` shows it formatted anew. */
  readonly xml: string;
  /** What libvirt wants to know of the domain besides, its CPU for one; null in images of older libvirts. */
  readonly cookie: string | null;
}

/**
 * @param bytes the data area: header.dataLength bytes behind the header
 * @throws MultifdError IMAGE_DAMAGED
 */
export function decodeLibvirtData(header: LibvirtHeader, bytes: Uint8Array): LibvirtData {
  const { cookieOffset, dataLength } = header;
  if (bytes.length !== dataLength) {
    throw damaged("libvirt's data area", `it has ${bytes.length} bytes, not ${dataLength}`);
  }
  return {
    xml: readText(bytes.subarray(0, cookieOffset ?? dataLength), "the domain's XML"),
    cookie: cookieOffset === null ? null : readText(bytes.subarray(cookieOffset), "the cookie"),
  };
}

/**
 * Header and data area of a raw image as libvirt restores it. They end at a multiple of 4096, where QEMU's stream
 * belongs, and have the room that libvirt leaves.
 * @param data.complete false until the whole image is on the disk
 * @throws MultifdError USAGE (the XML or the cookie cannot be stored)
 */
export function encodeLibvirtStart({
  complete,
  running,
  xml,
  cookie,
}: LibvirtData & Pick<LibvirtHeader, "complete" | "running">): Buffer {
  const texts = [writeText(xml, "XML"), ...(cookie === null ? [] : [writeText(cookie, "cookie")])];
  const used = texts.reduce((sum, text) => sum + text.length, HEADER_BYTES);
  const start = Buffer.alloc(alignUp(used + ROOM_BYTES));
  const dataLength = start.length - HEADER_BYTES;
  if (dataLength > MAX_DATA_BYTES) {
    throw new MultifdError(
      "USAGE",
      `the domain's XML and cookie have ${used} bytes, more than libvirt parses`,
    );
  }
  const cookieOffset = cookie === null ? null : (texts[0] as Buffer).length;
  const header = encodeLibvirtHeader({ complete, dataLength, running, format: "raw", cookieOffset });
  Buffer.concat([header, ...texts]).copy(start);
  return start;
}

/** Up to the first NUL: what stands behind it is room. */
function readText(bytes: Uint8Array, what: string): string {
  const end = bytes.indexOf(0);
  if (end <= 0) throw damaged("libvirt's data area", `${what} ${end === 0 ? "is empty" : "has no end"}`);
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes.subarray(0, end));
  } catch (cause) {
    throw damaged("libvirt's data area", `${what} is no UTF-8 text`, {}, cause);
  }
}

function writeText(text: string, what: string): Buffer {
  if (text === "" || text.includes("\0")) {
    throw new MultifdError("USAGE", `the domain's ${what} must be text without NUL characters`);
  }
  return Buffer.from(`${text}\0`);
}
