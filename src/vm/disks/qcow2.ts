import { open } from "node:fs/promises";
import type { DiskRecord } from "../../formats/image/model.ts";

const MAGIC = Buffer.from("QFI\xfb", "latin1");
/** l1_size (u32) and l1_table_offset (u64), big-endian (QEMU's docs/interop/qcow2.txt, versions 2 and 3). */
const L1_SIZE = 36;
const L1_TABLE_OFFSET = 40;
const HEADER = 48;
const CHUNK = 2 ** 16;

/** Whether a layer is a qcow2 that nothing was ever written to: its L1 table points nowhere. */
export async function holdsNothing({ file: path, format }: DiskRecord): Promise<boolean> {
  if (path === null || format !== "qcow2") return false;
  const file = await open(path).catch(() => null);
  if (file === null) return false;
  try {
    const { buffer: header, bytesRead } = await file.read(Buffer.alloc(HEADER), 0, HEADER, 0);
    if (bytesRead < HEADER || !header.subarray(0, MAGIC.length).equals(MAGIC)) return false;
    const start = Number(header.readBigUInt64BE(L1_TABLE_OFFSET));
    const end = start + 8 * header.readUInt32BE(L1_SIZE);
    const chunk = Buffer.alloc(CHUNK);
    for (let at = start; at < end; at += CHUNK) {
      const length = Math.min(CHUNK, end - at);
      const { bytesRead } = await file.read(chunk, 0, length, at);
      if (bytesRead < length || chunk.subarray(0, length).some((byte) => byte !== 0)) return false;
    }
    return true;
  } finally {
    await file.close();
  }
}
