import { Buffer } from "node:buffer";
import { parseSection, type SentPage } from "./page-sections.ts";

/*
 * Reads what a source in postcopy sends, as the loader of QEMU 7.2.22 and 10.0.2 does (qemu_loadvm_state and
 * loadvm_process_command, migration/savevm.c; ram_load_setup, migration/ram.c). Shares nothing with the code under test, and
 * throws at the first byte that QEMU would not expect.
 */

const MAGIC = 0x5145564d;
const [START, PART, END, CONFIGURATION, COMMAND] = [0x01, 0x02, 0x03, 0x07, 0x08];
const PACKAGED = 7;
/** A PING and RUN. */
const PACKAGE_END_BYTES = 14;

export type Arrival =
  | { readonly what: "configuration"; readonly machine: string }
  | { readonly what: "blocks"; readonly blocks: readonly ArrivedBlock[] }
  | { readonly what: "command"; readonly number: number; readonly data: Buffer }
  | { readonly what: "devices"; readonly bytes: Buffer }
  | { readonly what: "page"; readonly block: string; readonly page: SentPage }
  | { readonly what: "end" };

export interface ArrivedBlock {
  readonly name: string;
  readonly bytes: number;
}

export interface ReaderOptions {
  /** The connection is a recovery's: it begins with commands. */
  readonly resumed: boolean;
  readonly ramId: number;
  /** Blocks of pages that are larger than 4096 bytes, for which the list says how large. */
  readonly hostPages: Readonly<Record<string, number>>;
}

/** Not all of what comes next is there. */
const MORE = Symbol("more");

/** A position in bytes that may end too early. */
class Cursor {
  readonly #bytes: Buffer;
  at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  take(count: number): Buffer {
    if (this.#bytes.length < this.at + count) throw MORE;
    this.at += count;
    return this.#bytes.subarray(this.at - count, this.at);
  }

  number(bytes: 1 | 2 | 4): number {
    return this.take(bytes).readUIntBE(0, bytes);
  }

  big(): number {
    return Number(this.take(8).readBigUInt64BE());
  }

  text(lengthBytes: 1 | 4 = 1): string {
    return this.take(this.number(lengthBytes)).toString("latin1");
  }
}

export class PostcopyReader {
  readonly #options: ReaderOptions;
  readonly #heard: (arrival: Arrival) => void;
  #held: Buffer = Buffer.alloc(0);
  #begun: boolean;
  #ended = false;

  constructor(options: ReaderOptions, heard: (arrival: Arrival) => void) {
    this.#options = options;
    this.#heard = heard;
    this.#begun = options.resumed;
  }

  push(bytes: Uint8Array): void {
    this.#held = Buffer.concat([this.#held, bytes]);
    while (this.#held.length > 0) {
      if (this.#ended) throw new Error("bytes follow the end of the stream");
      const cursor = new Cursor(this.#held);
      try {
        for (const arrival of this.#next(cursor)) this.#heard(arrival);
      } catch (error) {
        if (error === MORE) return;
        throw error;
      }
      this.#held = this.#held.subarray(cursor.at);
    }
  }

  #next(cursor: Cursor): Arrival[] {
    if (!this.#begun) {
      demand(cursor.number(4) === MAGIC && cursor.number(4) === 3, "the stream's magic and version");
      demand(cursor.number(1) === CONFIGURATION, "a configuration section");
      const machine = cursor.text(4);
      this.#begun = true;
      return [{ what: "configuration", machine }];
    }
    const type = cursor.number(1);
    if (type === COMMAND) return command(cursor);
    if (type === START) return [this.#start(cursor)];
    if (type === PART) return this.#part(cursor);
    demand(type === END, `a section or a command, but ${type}`);
    demand(cursor.number(4) === this.#options.ramId, "the END section of RAM");
    this.#sectionEnd(cursor);
    demand(cursor.number(1) === 0, "the byte that ends the stream");
    this.#ended = true;
    return [{ what: "end" }];
  }

  #start(cursor: Cursor): Arrival {
    demand(cursor.number(4) === this.#options.ramId && cursor.text() === "ram", "the START section of RAM");
    demand(cursor.number(4) === 0 && cursor.number(4) === 4, "RAM's instance 0 and version 4");
    const word = cursor.big();
    demand(word % 4096 === 4, "the size of RAM");
    const blocks: ArrivedBlock[] = [];
    for (let left = word - 4; left > 0; left -= blocks.at(-1)?.bytes ?? 0) {
      const name = cursor.text();
      blocks.push({ name, bytes: cursor.big() });
      const hostPage = this.#options.hostPages[name];
      if (hostPage !== undefined) demand(cursor.big() === hostPage, `the page size of ${name}`);
    }
    this.#sectionEnd(cursor);
    return { what: "blocks", blocks };
  }

  #part(cursor: Cursor): Arrival[] {
    const parsed = parseSection(this.#held, this.#options.ramId);
    if (parsed === null) throw MORE;
    cursor.at = parsed.end;
    const { block, pages } = parsed.section;
    return pages.map((page) => ({ what: "page", block, page }));
  }

  #sectionEnd(cursor: Cursor): void {
    demand(cursor.big() === 0x10, "the word that ends a section's records");
    demand(cursor.number(1) === 0x7e && cursor.number(4) === this.#options.ramId, "a section's footer");
  }
}

function command(cursor: Cursor): Arrival[] {
  const number = cursor.number(2);
  const data = cursor.take(cursor.number(2));
  if (number !== PACKAGED) return [{ what: "command", number, data: Buffer.from(data) }];
  const bytes = Buffer.from(cursor.take(data.readUInt32BE()));
  const end = bytes.length - PACKAGE_END_BYTES;
  const commands = new Cursor(Buffer.concat([bytes.subarray(0, 5), bytes.subarray(end)]));
  const [listen, ping, run] = [1, 2, 3].flatMap(() => {
    demand(commands.number(1) === COMMAND, "a command in the package");
    return command(commands);
  });
  return [listen, { what: "devices", bytes: bytes.subarray(5, end) }, ping, run] as Arrival[];
}

function demand(fits: boolean, what: string): void {
  if (!fits) throw new Error(`the source does not send ${what}`);
}
