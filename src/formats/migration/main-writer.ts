import { Buffer } from "node:buffer";
import { SECTION_CONFIGURATION, STREAM_VERSION } from "./configuration.ts";
import { RAM_FLAGS } from "./ram-records.ts";
import { MAIN_MAGIC, PAGE_SIZE } from "./wire.ts";
import { be16, be32, be64, counted, u8 } from "./words.ts";

/*
 * The pieces that make up a main channel, as QEMU 7.2.22 and 10.0.2 write them (migration/savevm.c, migration/ram.c):
 * whoever plays a QEMU that migrates puts them together.
 */

const SECTION = { START: 0x01, PART: 0x02, END: 0x03, FULL: 0x04, VMDESC: 0x06, COMMAND: 0x08 } as const;
const SECTION_FOOTER = 0x7e;
const RAM_VERSION = 4;

/** A RAMBlock and its used length. */
export interface BlockSpec {
  readonly name: string;
  readonly bytes: number;
}

/** Magic, version and the CONFIGURATION section. @param subsections its, whole ones, if it has any */
export function configuration(machine: string, ...subsections: readonly Buffer[]): Buffer {
  const head = [be32(MAIN_MAGIC), be32(STREAM_VERSION), u8(SECTION_CONFIGURATION), be32(machine.length)];
  return Buffer.concat([...head, Buffer.from(machine, "latin1"), ...subsections]);
}

export function command(number: number, data: Buffer = Buffer.alloc(0)): Buffer {
  return Buffer.concat([u8(SECTION.COMMAND), be16(number), be16(data.length), data]);
}

/** Of RAM, unless another iterable device is named. */
export function startSection(
  id: number,
  payload: Buffer,
  name = "ram",
  version: number = RAM_VERSION,
): Buffer {
  return named(SECTION.START, id, name, version, payload);
}

export function partSection(id: number, payload: Buffer): Buffer {
  return Buffer.concat([u8(SECTION.PART), be32(id), payload, footer(id)]);
}

export function endSection(id: number, payload: Buffer): Buffer {
  return Buffer.concat([u8(SECTION.END), be32(id), payload, footer(id)]);
}

/** A device's whole state. */
export function fullSection(id: number, name: string, state: Buffer): Buffer {
  return named(SECTION.FULL, id, name, 1, state);
}

/** Behind the last device. */
export const eofByte: Buffer = u8(0);

/** What ends the stream: the devices once more, for people. */
export function vmdescription(json: string): Buffer {
  return Buffer.concat([u8(SECTION.VMDESC), be32(json.length), Buffer.from(json, "latin1")]);
}

export function vmdescriptionJson(devices: readonly string[], pageSize: number = PAGE_SIZE): string {
  const list = devices.map((name) => ({ name, instance_id: 0, version: 1, fields: [] }));
  return JSON.stringify({ page_size: pageSize, devices: list });
}

/** What RAM's START begins with. */
export function blockList(blocks: readonly BlockSpec[]): Buffer {
  const total = blocks.reduce((sum, { bytes }) => sum + bytes, 0);
  const entries = blocks.flatMap(({ name, bytes }) => [counted(name), be64(bytes)]);
  return Buffer.concat([be64(total + RAM_FLAGS.MEM_SIZE), ...entries]);
}

/** What ends the records of each of RAM's sections; before QEMU 8.1 it is the barrier, too. */
export const eosWord: Buffer = be64(RAM_FLAGS.EOS);
/** The barrier of QEMU 8.1 and later. */
export const flushWord: Buffer = be64(RAM_FLAGS.MULTIFD_FLUSH);

function named(type: number, id: number, name: string, version: number, payload: Buffer): Buffer {
  const header = [u8(type), be32(id), counted(name), be32(0), be32(version)];
  return Buffer.concat([...header, payload, footer(id)]);
}

function footer(id: number): Buffer {
  return Buffer.concat([u8(SECTION_FOOTER), be32(id)]);
}
