import { Buffer } from "node:buffer";
import { be16, be32, be64, counted, u8 } from "../migration/words.ts";

/*
 * Commands of a postcopy source: qemu_savevm_command_send and enum qemu_vm_cmd of QEMU 7.2.22 and 10.0.2,
 * migration/savevm.c. On the wire: u8 8, be16 command, be16 length, data.
 */

const SECTION_COMMAND = 0x08;

/** From here on the destination answers on the same connection. */
export const OPEN_RETURN_PATH: Buffer = command(1);
/** The devices that follow in the package are loaded while RAM is still missing. */
export const LISTEN: Buffer = command(4);
/** The guest runs. */
export const RUN: Buffer = command(5);
/** After a recovery: all bitmaps have been asked for; the destination repeats what it waits for. */
export const RESUME: Buffer = command(9);

/** The destination answers with a PONG of this number once it has come to this place of the stream. */
export function ping(number: number): Buffer {
  return command(2, be32(number));
}

/**
 * Pages will follow when the guest runs; the destination empties all its RAM now. Must stand before RAM's START section.
 * @param hostPages page sizes of the destination's RAMBlocks, each once
 */
export function advise(hostPages: readonly number[], targetPage: number): Buffer {
  const summary = hostPages.reduce((sum, bytes) => sum + bytes, 0);
  return command(3, Buffer.concat([be64(summary), be64(targetPage)]));
}

/** Empties a stretch of a RAMBlock: at least one such command must come before LISTEN, or the destination hangs. */
export function discard(block: string, start: number, length: number): Buffer {
  return command(6, Buffer.concat([u8(0), counted(block), u8(0), be64(start), be64(length)]));
}

/** What stands before a package of `length` bytes: commands and devices that are read as a whole, then run. */
export function packaged(length: number): Buffer {
  return command(7, be32(length));
}

/** After a recovery: which pages of a RAMBlock has the destination? */
export function askReceived(block: string): Buffer {
  return command(10, counted(block));
}

function command(number: number, data: Buffer = Buffer.alloc(0)): Buffer {
  return Buffer.concat([u8(SECTION_COMMAND), be16(number), be16(data.length), data]);
}
