import { Buffer } from "node:buffer";
import { fieldsOf, readFields, sizeOf } from "./spec-reader.ts";

/*
 * A second reader of docs/formats/migration-stream.md that shares no code with the product: it takes numbers, offsets and
 * sizes from the tables of the page. It trusts the bytes, as only a test may.
 */

export interface SpecMigration {
  readonly machine: string;
  readonly barriers: "legacy" | "modern";
  /** Bytes of the RAMBlocks by name, all epochs applied. */
  readonly ram: ReadonlyMap<string, Buffer>;
  /** From the init packets. */
  readonly channels: readonly { readonly id: number; readonly uuid: string; readonly syncs: number }[];
  /** Pages with data that each epoch brought, over all channels. */
  readonly dataPages: readonly number[];
  readonly devices: readonly string[];
}

/** What happens to one page. */
interface Write {
  readonly block: string;
  readonly offset: number;
  /** null: it is zero. */
  readonly data: Buffer | null;
}

/** By epoch. */
type Epochs = Write[][];

export function readMigrationBySpec(page: string, main: Buffer, channels: readonly Buffer[]): SpecMigration {
  const stream = new SpecMain(page, main);
  stream.read();
  const read = channels.map((bytes) => readChannel(page, bytes));
  const ram = new Map([...stream.blocks].map(([name, bytes]) => [name, Buffer.alloc(bytes, 0xee)]));
  const dataPages: number[] = [];
  for (let epoch = 0; epoch <= stream.barriersSeen; epoch++) {
    const writes = [stream.epochs, ...read.map(({ epochs }) => epochs)].flatMap((all) => all[epoch] ?? []);
    for (const { block, offset, data } of writes) {
      (ram.get(block) as Buffer).set(data ?? Buffer.alloc(stream.pageSize), offset);
    }
    dataPages.push(writes.filter(({ data }) => data !== null).length);
  }
  return {
    ...{ machine: stream.machine, barriers: stream.modern ? "modern" : "legacy", ram, dataPages },
    channels: read.map(({ id, uuid, epochs }) => ({ id, uuid, syncs: epochs.length - 1 })),
    devices: stream.devices,
  };
}

/** The rows `| 0x07 | NAME | …` below a heading: numbers by name. */
export function numbersOf(page: string, heading: string): ReadonlyMap<string, number> {
  const section = (page.split(`\n${heading}\n`)[1] ?? "").split(/\n#/)[0] ?? "";
  const rows = [...section.matchAll(/^\| +(0x[0-9a-f]+|\d+) +\| `(\w+)` +\|/gm)];
  if (rows.length === 0) throw new Error(`no numbers below "${heading}"`);
  return new Map(rows.map(([, number, name]) => [name as string, Number(number)]));
}

class SpecMain {
  readonly #bytes: Buffer;
  readonly #section: (name: string) => number;
  readonly #record: (name: string) => number;
  #at = 0;
  #block = "";
  readonly pageSize = 4096;
  machine = "";
  modern = false;
  barriersSeen = 0;
  readonly blocks = new Map<string, number>();
  readonly epochs: Epochs = [[]];
  devices: readonly string[] = [];

  constructor(page: string, bytes: Buffer) {
    this.#bytes = bytes;
    this.#section = named(numbersOf(page, "### Section types"));
    this.#record = named(numbersOf(page, "### RAM records"));
  }

  read(): void {
    expectEqual("magic", this.#text(4), "QEVM");
    expectEqual("version", this.#number(4), 3);
    expectEqual("configuration", this.#number(1), this.#section("CONFIGURATION"));
    this.machine = this.#text(this.#number(4));
    for (;;) {
      const type = this.#number(1);
      if (type === this.#section("COMMAND")) {
        this.#number(2);
        this.#take(this.#number(2));
        continue;
      }
      const id = this.#number(4);
      if (type === this.#section("START")) {
        expectEqual("device", this.#text(this.#number(1)), "ram");
        expectEqual("instance", this.#number(4), 0);
        expectEqual("RAM's version", this.#number(4), 4);
        this.#readBlockList();
      }
      this.#readRecords();
      expectEqual("footer", this.#number(1), this.#section("FOOTER"));
      expectEqual("footer's id", this.#number(4), id);
      if (type === this.#section("END")) break;
    }
    this.#readTail();
  }

  #readBlockList(): void {
    const total = this.#number(8) - this.#record("MEM_SIZE");
    for (let sum = 0; sum < total; ) {
      const name = this.#text(this.#number(1));
      const length = this.#number(8);
      this.blocks.set(name, length);
      sum += length;
    }
    this.modern = Number(this.#bytes.readBigUInt64BE(this.#at)) === this.#record("MULTIFD_FLUSH");
  }

  #readRecords(): void {
    for (;;) {
      const word = this.#number(8);
      const flags = word % this.pageSize;
      const barrier = this.#record(this.modern ? "MULTIFD_FLUSH" : "EOS");
      if (flags === barrier) {
        this.barriersSeen++;
        this.epochs.push([]);
      }
      if (flags === this.#record("EOS")) return;
      if (flags === this.#record("MULTIFD_FLUSH")) continue;
      const named = Math.floor(flags / this.#record("CONTINUE")) % 2 === 0;
      if (named) this.#block = this.#text(this.#number(1));
      const kind = named ? flags : flags - this.#record("CONTINUE");
      const data = kind === this.#record("PAGE") ? this.#take(this.pageSize) : null;
      if (data === null) {
        expectEqual("record", kind, this.#record("ZERO"));
        expectEqual("fill", this.#number(1), 0);
      }
      this.epochs.at(-1)?.push({ block: this.#block, offset: word - flags, data });
    }
  }

  /** Devices have no lengths: EOF byte and vmdescription are found from the end, where the text's length fits. */
  #readTail(): void {
    const start = Buffer.from([this.#section("EOF"), this.#section("VMDESCRIPTION")]);
    for (let at = this.#at; at < this.#bytes.length; at++) {
      at = this.#bytes.indexOf(start, at);
      if (at < 0) break;
      if (at + 6 + this.#bytes.readUInt32BE(at + 2) !== this.#bytes.length) continue;
      const described = JSON.parse(this.#bytes.toString("utf8", at + 6));
      expectEqual("page size", described.page_size, this.pageSize);
      this.devices = described.devices.map(({ name }: { name: string }) => name);
      return;
    }
    throw new Error("there is no vmdescription");
  }

  #number(size: 1 | 2 | 4 | 8): number {
    return Number(BigInt(`0x${this.#take(size).toString("hex")}`));
  }

  #text(length: number): string {
    return this.#take(length).toString("latin1");
  }

  #take(length: number): Buffer {
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }
}

function readChannel(page: string, bytes: Buffer): { id: number; uuid: string; epochs: Epochs } {
  const initFields = fieldsOf(page, "### Init packet");
  const packetFields = fieldsOf(page, "### Packet with pages");
  const flag = named(numbersOf(page, "### Flags"));
  const init = readFields(initFields, bytes, 0);
  const epochs: Epochs = [[]];
  for (let at = sizeOf(initFields); at < bytes.length; ) {
    const packet = readFields(packetFields, bytes, at);
    const value = (name: string): number => Number(packet.get(name) ?? -1n);
    expectEqual("magic", value("magic"), Number(init.get("magic")));
    const nameAt = at + (packetFields.get("ramblock")?.offset ?? 0);
    const offsetsAt = at + (packetFields.get("offsets")?.offset ?? 0);
    const block = bytes.toString("latin1", nameAt, bytes.indexOf(0, nameAt));
    const payloadAt = at + sizeOf(packetFields);
    const [normal, zero] = [value("normal_pages"), value("zero_pages")];
    for (let n = 0; n < normal + zero; n++) {
      const offset = Number(bytes.readBigUInt64BE(offsetsAt + 8 * n));
      const data = n < normal ? bytes.subarray(payloadAt + 4096 * n, payloadAt + 4096 * (n + 1)) : null;
      epochs.at(-1)?.push({ block, offset, data });
    }
    at = payloadAt + (normal > 0 ? value("next_packet_size") : 0);
    if (value("flags") % (2 * flag("SYNC")) >= flag("SYNC")) epochs.push([]);
  }
  const uuid = (init.get("uuid") as bigint).toString(16).padStart(32, "0");
  return { id: Number(init.get("id")), uuid, epochs };
}

function named(numbers: ReadonlyMap<string, number>): (name: string) => number {
  return (name) => {
    const number = numbers.get(name);
    if (number === undefined) throw new Error(`the page has no number for ${name}`);
    return number;
  };
}

function expectEqual<T>(what: string, found: T, wanted: T): void {
  if (found !== wanted) throw new Error(`${what} is ${found}, not ${wanted}`);
}
