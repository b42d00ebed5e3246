import { Buffer } from "node:buffer";

/*
 * The fields of which QEMU's migration stream consists: qemu_put_byte, qemu_put_be16 … of migration/qemu-file.c. Numbers
 * are big-endian.
 */

export function u8(value: number): Buffer {
  return Buffer.of(value);
}

export function be16(value: number): Buffer {
  const word = Buffer.alloc(2);
  word.writeUInt16BE(value);
  return word;
}

export function be32(value: number): Buffer {
  const word = Buffer.alloc(4);
  word.writeUInt32BE(value);
  return word;
}

export function be64(value: number): Buffer {
  const word = Buffer.alloc(8);
  word.writeBigUInt64BE(BigInt(value));
  return word;
}

/** A name behind its length of one byte. */
export function counted(text: string): Buffer {
  return Buffer.concat([u8(text.length), Buffer.from(text, "latin1")]);
}
