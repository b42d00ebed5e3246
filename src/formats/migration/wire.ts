import { MultifdError } from "../../errors.ts";

/** First four bytes of a multifd channel (MULTIFD_MAGIC, QEMU 7.2 and 10.0 migration/multifd.h). */
export const MULTIFD_MAGIC = 0x11223344;
/** First four bytes of the main channel, "QEVM" (QEMU_VM_FILE_MAGIC, migration/savevm.h). */
export const MAIN_MAGIC = 0x5145564d;
/** "QEVM" and the version, 3. */
export const MAIN_HEADER_BYTES = 8;
/** The target page size of every x86 machine; the only one that multifd channels are walked with. */
export const PAGE_SIZE = 4096;

/**
 * Barriers on main and SYNCs on a channel: QEMU 7.2, which makes the most, makes about 20 a second. Each is
 * remembered, so that a peer that sends nothing else would fill memory.
 */
export const SYNC_LIMIT: number = 1024 * 1024;

/**
 * The bytes at `offset` cannot be what QEMU sends there. `what` says what stands there instead of what, and reads
 * on from the channel's name, which only the caller knows: "channel 3: has a packet …".
 */
export function protocolError(
  what: string,
  offset: number,
  details: Readonly<Record<string, string | number>> = {},
): MultifdError {
  return new MultifdError("PROTOCOL", `${what} (offset ${offset})`, { offset, ...details });
}

/** 32 hex digits as the textual form of a UUID; QEMU sends the bytes in the order of the text. */
export function uuidText(hex: string): string {
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

export function hexWord(value: number): string {
  return `0x${value.toString(16)}`;
}
