import { Buffer } from "node:buffer";
import { describe, expect, test } from "vitest";
import { decodeLibvirtData, encodeLibvirtStart } from "../../../src/formats/libvirt/data-area.ts";
import { decodeLibvirtHeader, isLibvirtImage, requireComplete } from "../../../src/formats/libvirt/header.ts";

const XML = "<domain type='kvm'>\n  <name>tür</name>\n</domain>\n";
const COOKIE = "<cookie><cpu mode='custom'/></cookie>\n";

/** Version 2, 64 bytes of data, it ran, zstd, the cookie at byte 12. Taken down by hand. */
const HEADER = Buffer.from(
  [
    "4c696276697274 51656d756453617665", // LibvirtQemudSave
    "02000000 40000000 01000000 05000000 0c000000",
    "00".repeat(56),
  ]
    .join("")
    .replaceAll(" ", ""),
  "hex",
);
const DATA = Buffer.alloc(64);
DATA.write("<domain>ü!\0<cookie/>\0");
const FILE_BYTES = 92 + 64 + 1000;

function patched(at: number, value: number, from: Buffer = HEADER): Buffer {
  const bytes = Buffer.from(from);
  bytes.writeUInt32LE(value, at);
  return bytes;
}

const failing = (code: string, text: string): object =>
  expect.objectContaining({ code, message: expect.stringContaining(text) });

describe("the header of libvirt's images", () => {
  test("written out by hand is read", () => {
    expect(isLibvirtImage(HEADER)).toBe(true);
    const header = decodeLibvirtHeader(HEADER, FILE_BYTES);
    expect(header).toEqual({
      ...{ complete: true, version: 2, byteOrder: "little", dataLength: 64, running: true },
      ...{ format: "zstd", cookieOffset: 12, streamOffset: 156 },
    });
    expect(decodeLibvirtData(header, DATA)).toEqual({ xml: "<domain>ü!", cookie: "<cookie/>" });
  });

  test("of a big-endian host says the same", () => {
    const big = Buffer.from(HEADER);
    big.subarray(16).swap32();
    const { byteOrder, ...rest } = decodeLibvirtHeader(big, FILE_BYTES);
    expect(byteOrder).toBe("big");
    expect(rest).toEqual({ ...decodeLibvirtHeader(HEADER, FILE_BYTES), byteOrder: undefined });
  });

  test("of version 1 means a raw image without a cookie, whatever the unused words hold", () => {
    expect(decodeLibvirtHeader(patched(16, 1), FILE_BYTES)).toMatchObject({
      ...{ version: 1, format: "raw", cookieOffset: null, running: true, streamOffset: 156 },
    });
  });

  test.each(["raw", "gzip", "bzip2", "xz", "lzop", "zstd", "sparse"])("names the format %s", (name) => {
    const number = ["raw", "gzip", "bzip2", "xz", "lzop", "zstd", "sparse"].indexOf(name);
    expect(decodeLibvirtHeader(patched(28, number), FILE_BYTES).format).toBe(name);
  });

  test("says when libvirt never finished", () => {
    const unfinished = Buffer.from(HEADER);
    unfinished.write("Part", 12);
    expect(isLibvirtImage(unfinished)).toBe(true);
    const header = decodeLibvirtHeader(unfinished, FILE_BYTES);
    expect(header.complete).toBe(false);
    expect(() => requireComplete(header)).toThrow(failing("NOT_SEALED", "LibvirtQemudPart"));
    expect(() => requireComplete({ ...header, complete: true })).not.toThrow();
  });

  test.each([
    ["another magic", Buffer.from("LibvirtQemudSavf".padEnd(92, "\0")), "NOT_AN_IMAGE", "LibvirtQemud"],
    ["one that is cut", HEADER.subarray(0, 91), "IMAGE_DAMAGED", "91 bytes, not 92"],
    ["version 0", patched(16, 0), "IMAGE_DAMAGED", "version is 0"],
    ["version 3", patched(16, 3), "UNSUPPORTED_VERSION", "version 3"],
    ["no data", patched(20, 0), "IMAGE_DAMAGED", "is empty"],
    ["data beyond the file", patched(20, 1065), "IMAGE_DAMAGED", "1065 bytes, and only 1064 are there"],
    ["too much data", patched(20, 2 ** 24 + 1), "IMAGE_DAMAGED", "more than any domain's XML"],
    ["a strange was_running", patched(24, 2), "IMAGE_DAMAGED", "was_running is 2"],
    ["an unknown format", patched(28, 7), "UNSUPPORTED_VERSION", "the format 7"],
    ["a cookie behind the data", patched(32, 65), "IMAGE_DAMAGED", "begins at 65 of 64 bytes"],
  ])("is refused with %s", (_what, bytes, code, text) => {
    expect(() => decodeLibvirtHeader(bytes, FILE_BYTES)).toThrow(failing(code, text));
  });

  test("may have a data area that ends with the file", () => {
    expect(decodeLibvirtHeader(patched(20, 1064), FILE_BYTES).streamOffset).toBe(FILE_BYTES);
  });
});

describe("the data area of libvirt's images", () => {
  const header = decodeLibvirtHeader(patched(32, 0), FILE_BYTES);

  test("holds the XML up to its NUL when there is no cookie", () => {
    const room = Buffer.alloc(64, 0x20);
    room.write("<domain/>\0");
    expect(decodeLibvirtData(header, room)).toEqual({ xml: "<domain/>", cookie: null });
  });

  test.each([
    ["XML without an end", header, Buffer.alloc(64, 0x20), "XML has no end"],
    ["no XML", header, Buffer.alloc(64), "XML is empty"],
    ["XML that reaches into the cookie", { ...header, cookieOffset: 4 }, DATA, "XML has no end"],
    ["a cookie without a byte", { ...header, cookieOffset: 64 }, DATA, "cookie has no end"],
    ["a cookie in the room", { ...header, cookieOffset: 40 }, DATA, "cookie is empty"],
    ["bytes that are no UTF-8", header, Buffer.alloc(64, 0xff).fill(0, 8), "no UTF-8 text"],
    ["too few bytes", header, DATA.subarray(1), "63 bytes, not 64"],
  ])("is refused with %s", (_what, of, bytes, text) => {
    expect(() => decodeLibvirtData(of, bytes)).toThrow(failing("IMAGE_DAMAGED", text));
  });
});

describe("the start of an image for libvirt", () => {
  test.each([COOKIE, null])("is read back as it was written, cookie %j", (cookie) => {
    const bytes = encodeLibvirtStart({ complete: true, running: true, xml: XML, cookie });
    const header = decodeLibvirtHeader(bytes, bytes.length);
    expect(header).toMatchObject({ complete: true, version: 2, running: true, format: "raw" });
    expect(header.streamOffset).toBe(bytes.length);
    expect(decodeLibvirtData(header, bytes.subarray(92))).toEqual({ xml: XML, cookie });
  });

  test("lets the stream begin at a multiple of 4096, with the room that libvirt leaves", () => {
    for (const length of [1, 4095 - 92, 4096 - 92, 4097 - 92]) {
      const xml = "x".repeat(length);
      const bytes = encodeLibvirtStart({ complete: false, running: false, xml, cookie: null });
      expect(bytes.length % 4096).toBe(0);
      expect(bytes.length - (92 + length + 1)).toBeGreaterThanOrEqual(65536);
      expect(bytes.length - (92 + length + 1)).toBeLessThan(65536 + 4096);
    }
  });

  test("is marked unfinished until the caller says otherwise", () => {
    const start = { running: false, xml: XML, cookie: COOKIE };
    const unfinished = encodeLibvirtStart({ ...start, complete: false });
    expect(unfinished.toString("latin1", 0, 16)).toBe("LibvirtQemudPart");
    unfinished.write("Save", 12);
    expect(unfinished.equals(encodeLibvirtStart({ ...start, complete: true }))).toBe(true);
  });

  test.each([
    ["empty XML", { xml: "", cookie: null }],
    ["XML with a NUL", { xml: "<domain\0/>", cookie: null }],
    ["a cookie with a NUL", { xml: XML, cookie: "\0" }],
    ["more than libvirt parses", { xml: "x".repeat(2 ** 24), cookie: null }],
  ])("is refused with %s", (_what, data) => {
    expect(() => encodeLibvirtStart({ complete: true, running: true, ...data })).toThrow(
      expect.objectContaining({ code: "USAGE" }),
    );
  });
});
