import { Buffer } from "node:buffer";
import { MultifdError } from "../../errors.ts";
import { damaged } from "../image/damage.ts";
import { viewOf } from "../image/u64.ts";

/** virQEMUSaveHeader of libvirt 11.3, src/qemu/qemu_saveimage.h: magic, seven words used, fourteen unused. */
export const HEADER_BYTES = 92;
const MAGIC_BYTES = 16;
const COMPLETE = "LibvirtQemudSave";
/** What stands there until the save has succeeded. */
const PARTIAL = "LibvirtQemudPart";
const AT = { version: 16, dataLength: 20, running: 24, format: 28, cookieOffset: 32 } as const;
const NEWEST_VERSION = 2;
/** A domain's XML has some KiB and 64 KiB of room; libvirt itself parses no text of more than 10 MB. */
export const MAX_DATA_BYTES: number = 16 * 1024 * 1024;

/** By their numbers in the file: virQEMUSaveFormat of libvirt 11.3; 9.0 knows the first five. `sparse` is mapped-ram. */
const FORMATS = ["raw", "gzip", "bzip2", "xz", "lzop", "zstd", "sparse"] as const;
export type LibvirtFormat = (typeof FORMATS)[number];

/** The header of an image that libvirt saved a domain to. */
export interface LibvirtHeader {
  /** False: the save never ended, or not well. */
  readonly complete: boolean;
  readonly version: number;
  /** How the host wrote its numbers that saved the domain. */
  readonly byteOrder: "little" | "big";
  /** Bytes of the data area between header and stream: the domain's XML, the cookie, and room. */
  readonly dataLength: number;
  /** Whether the domain ran when it was saved, and runs again once it is restored. */
  readonly running: boolean;
  readonly format: LibvirtFormat;
  /** Where the cookie begins in the data area; null: there is none. */
  readonly cookieOffset: number | null;
  /** Where QEMU's stream, or what it was compressed to, begins; counts from the header. */
  readonly streamOffset: number;
}

/** Whether a file that begins with these bytes is an image of libvirt, finished or not. */
export function isLibvirtImage(head: Uint8Array): boolean {
  const magic = magicOf(head);
  return magic === COMPLETE || magic === PARTIAL;
}

/**
 * @param bytes what the image begins with, 92 bytes or more
 * @param available from the image's first byte to the end of the file
 * @throws MultifdError NOT_AN_IMAGE, IMAGE_DAMAGED, UNSUPPORTED_VERSION; an unfinished image is described, not thrown
 */
export function decodeLibvirtHeader(bytes: Uint8Array, available: number): LibvirtHeader {
  const magic = magicOf(bytes);
  if (magic !== COMPLETE && magic !== PARTIAL) {
    throw new MultifdError(
      "NOT_AN_IMAGE",
      'this is no image of libvirt: it does not begin with "LibvirtQemud"',
    );
  }
  if (bytes.length < HEADER_BYTES) {
    throw damaged("libvirt's header", `it has ${bytes.length} bytes, not ${HEADER_BYTES}`);
  }
  const view = viewOf(bytes);
  const { version, little } = readVersion(view);
  const word = (at: number): number => view.getUint32(at, little);
  const dataLength = readDataLength(word(AT.dataLength), available);
  // Version 1 had neither of the two: the words were unused and zero, and every image was raw.
  const format = version === 1 ? "raw" : readFormat(word(AT.format));
  const cookieOffset = version === 1 ? 0 : word(AT.cookieOffset);
  if (cookieOffset > dataLength) {
    throw damaged(
      byte(AT.cookieOffset),
      `the cookie begins at ${cookieOffset} of ${dataLength} bytes of data`,
    );
  }
  if (word(AT.running) > 1) throw damaged(byte(AT.running), `was_running is ${word(AT.running)}, not 0 or 1`);
  return {
    complete: magic === COMPLETE,
    version,
    byteOrder: little ? "little" : "big",
    dataLength,
    running: word(AT.running) === 1,
    format,
    cookieOffset: cookieOffset === 0 ? null : cookieOffset,
    streamOffset: HEADER_BYTES + dataLength,
  };
}

/** A header as libvirt 11.3 writes it on x86: version 2, little-endian. */
export function encodeLibvirtHeader(
  header: Pick<LibvirtHeader, "complete" | "dataLength" | "running" | "format" | "cookieOffset">,
): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES);
  bytes.write(header.complete ? COMPLETE : PARTIAL, "latin1");
  bytes.writeUInt32LE(NEWEST_VERSION, AT.version);
  bytes.writeUInt32LE(header.dataLength, AT.dataLength);
  bytes.writeUInt32LE(header.running ? 1 : 0, AT.running);
  bytes.writeUInt32LE(FORMATS.indexOf(header.format), AT.format);
  bytes.writeUInt32LE(header.cookieOffset ?? 0, AT.cookieOffset);
  return bytes;
}

/** Throws NOT_SEALED for an image that must not be used. */
export function requireComplete({ complete }: LibvirtHeader): void {
  if (complete) return;
  throw new MultifdError(
    "NOT_SEALED",
    `libvirt never finished this image (it begins with "${PARTIAL}"): use another one; libvirt refuses it, too`,
  );
}

/** Words are in the order of the host that wrote them, and no version is so large that it could be read either way. */
function readVersion(view: DataView): { version: number; little: boolean } {
  const [little, big] = [true, false].map((order) => view.getUint32(AT.version, order)) as [number, number];
  const version = Math.min(little, big);
  if (version === 0) throw damaged(byte(AT.version), "the version is 0, which no libvirt wrote");
  if (version > NEWEST_VERSION) {
    throw new MultifdError(
      "UNSUPPORTED_VERSION",
      `libvirt's header has version ${version}, and only ${NEWEST_VERSION} and older are known; use a newer multifd-helper`,
      { version },
    );
  }
  return { version, little: version === little };
}

function readDataLength(dataLength: number, available: number): number {
  if (dataLength === 0) throw damaged(byte(AT.dataLength), "the data area, where the XML stands, is empty");
  if (dataLength > MAX_DATA_BYTES) {
    throw damaged(byte(AT.dataLength), `the data area has ${dataLength} bytes, more than any domain's XML`);
  }
  if (dataLength > available - HEADER_BYTES) {
    const problem = `the data area has ${dataLength} bytes, and only ${available - HEADER_BYTES} are there: the file was cut`;
    throw damaged(byte(AT.dataLength), problem);
  }
  return dataLength;
}

function readFormat(number: number): LibvirtFormat {
  const format = FORMATS[number];
  if (format !== undefined) return format;
  throw new MultifdError(
    "UNSUPPORTED_VERSION",
    `libvirt's header names the format ${number}, which is not known; use a newer multifd-helper`,
    { format: number },
  );
}

function magicOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.subarray(0, MAGIC_BYTES)).toString("latin1");
}

function byte(at: number): string {
  return `libvirt's header, byte ${at}`;
}
