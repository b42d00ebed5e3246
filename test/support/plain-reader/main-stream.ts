import { Buffer } from "node:buffer";
import { type Cursor, demand } from "./cursor.ts";

/*
 * A plain reader of QEMU's main stream (migration/savevm.c and ram.c of 7.2 and 10.0): shares no code with the
 * product, wants the whole stream in memory, and reads nothing that a PC without other iterable devices does not send.
 */

export const PAGE = 4096;
/** RAM_SAVE_FLAG_*: the low bits of a record's first word. */
export const FLAG = {
  ZERO: 0x02,
  MEM_SIZE: 0x04,
  PAGE: 0x08,
  EOS: 0x10,
  CONTINUE: 0x20,
  FLUSH: 0x200,
} as const;

export interface Head {
  readonly machine: string;
  readonly capabilities: readonly string[];
  /** Of the subsection configuration/uuid, 32 hex digits. */
  readonly uuid: string | null;
}

/** Reads what stands between a section's header and its footer, EOS included. */
export interface RamReader {
  start(cursor: Cursor, head: Head): void;
  /** Of PART and END. */
  more(cursor: Cursor): void;
}

export interface MainStream extends Head {
  /** Each command as hex digits, its section type left out, in the order of the stream. */
  readonly commands: readonly string[];
  /** Behind the footer of RAM's START section. */
  readonly startEnd: number;
  /** False in a background snapshot. */
  readonly hasRamEnd: boolean;
  /** All that stands behind RAM: device sections, EOF byte, vmdescription. */
  readonly rest: Buffer;
  /** From the vmdescription. */
  readonly devices: readonly string[];
}

/** Reads from the cursor to the end of its bytes. */
export function readMain(cursor: Cursor, ram: RamReader): MainStream {
  const head = readHead(cursor);
  const commands: string[] = [];
  let id: number | null = null;
  let startEnd = 0;
  let hasRamEnd = false;
  while (!hasRamEnd) {
    const at = cursor.at;
    if (id !== null && (cursor.next === 0x04 || cursor.next === 0x00)) break;
    const type = cursor.u8();
    if (type === 0x08) {
      const [command, length] = [cursor.take(2), cursor.take(2)];
      commands.push(Buffer.concat([command, length, cursor.take(length.readUInt16BE(0))]).toString("hex"));
    } else if (type === 0x01) {
      demand(id === null, `a second section START at ${at}`);
      id = cursor.u32();
      const named = `${cursor.counted()} ${cursor.u32()} ${cursor.u32()}`;
      demand(named === "ram 0 4", `the section START at ${at} is of "${named}", not of "ram 0 4"`);
      ram.start(cursor, head);
      readFooter(cursor, id);
      startEnd = cursor.at;
    } else if (type === 0x02 || type === 0x03) {
      demand(id !== null && cursor.u32() === id, `the section at ${at} is not RAM's`);
      ram.more(cursor);
      readFooter(cursor, id);
      hasRamEnd = type === 0x03;
    } else throw new Error(`a section of type ${type} at ${at}`);
  }
  const rest = cursor.take(cursor.left);
  return { ...head, commands, startEnd, hasRamEnd, rest, devices: readDevices(rest) };
}

function readHead(cursor: Cursor): Head {
  const magic = cursor.text(4);
  demand(magic === "QEVM", `the stream begins with "${magic}"`);
  const version = cursor.u32();
  demand(version === 3, `the stream is of version ${version}`);
  demand(cursor.u8() === 0x07, "the stream does not begin with its configuration");
  const machine = cursor.text(cursor.u32());
  let capabilities: string[] = [];
  let uuid: string | null = null;
  while (cursor.next === 0x05) {
    cursor.u8();
    const name = cursor.counted();
    demand(cursor.u32() === 1, `the subsection ${name} is not of version 1`);
    if (name === "configuration/target-page-bits")
      demand(cursor.u32() === 12, "the pages are not of 4096 bytes");
    else if (name === "configuration/capabilities") {
      capabilities = Array.from({ length: cursor.u32() }, () => cursor.counted());
    } else if (name === "configuration/uuid") uuid = cursor.take(16).toString("hex");
    else throw new Error(`the configuration has the subsection "${name}"`);
  }
  return { machine, capabilities, uuid };
}

function readFooter(cursor: Cursor, id: number): void {
  const at = cursor.at;
  demand(cursor.u8() === 0x7e && cursor.u32() === id, `no footer of section ${id} at ${at}`);
}

/** The section VMDESCRIPTION behind the EOF byte must end with the stream. */
function readDevices(rest: Buffer): string[] {
  for (let at = rest.length - 8; at >= 0; at--) {
    if (rest[at] !== 0 || rest[at + 1] !== 0x06 || rest.readUInt32BE(at + 2) !== rest.length - at - 6)
      continue;
    const { page_size, devices } = JSON.parse(rest.toString("utf8", at + 6)) as {
      page_size: number;
      devices: { name: string }[];
    };
    demand(page_size === PAGE, `the vmdescription has pages of ${page_size} bytes`);
    return devices.map(({ name }) => name);
  }
  throw new Error("the stream does not end with a vmdescription");
}

export interface ListedBlock {
  readonly name: string;
  readonly bytes: number;
}

/** The list that opens START. `entry` reads what stands behind a block's length, and makes of the block what is wanted. */
export function readBlockList<T>(cursor: Cursor, entry: (block: ListedBlock) => T): T[] {
  const total = cursor.u64() - FLAG.MEM_SIZE;
  demand(total >= 0 && total % PAGE === 0, `the RAM's size is ${total} bytes`);
  const names = new Set<string>();
  const blocks: T[] = [];
  for (let missing = total; missing > 0; ) {
    const block = { name: cursor.counted(), bytes: cursor.u64() };
    const { name, bytes } = block;
    demand(name !== "" && !names.has(name), `the block "${name}" has no name or comes twice`);
    demand(bytes > 0 && bytes % PAGE === 0 && bytes <= missing, `the block "${name}" has ${bytes} bytes`);
    names.add(name);
    blocks.push(entry(block));
    missing -= bytes;
  }
  return blocks;
}
