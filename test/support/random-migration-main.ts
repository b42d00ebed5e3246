import { Buffer } from "node:buffer";
import type { Random } from "./random.ts";
import type { Send } from "./random-migration-pages.ts";
import type { MigrationShape } from "./random-migration-shape.ts";
import * as wire from "./stream-builder.ts";

export interface MainSteps {
  readonly machine: string;
  /** Hex digits of each command. */
  readonly commands: readonly string[];
  /** Cut in front of each barrier. */
  readonly steps: readonly Buffer[];
  readonly rest: Buffer;
}

type Epochs = readonly (readonly Send[])[];

/** The main stream for these epochs: START with the first barrier, then an epoch and a barrier at a time. */
export function mainSteps(shape: MigrationShape, epochs: Epochs, uuid: string, random: Random): MainSteps {
  const machine = { "7.2": "pc-q35-7.2", "10": "pc-q35-10.0", "10 as 8.0": "pc-q35-8.0" }[shape.style];
  const pageBits = random.integer(4) === 0 ? { pageBits: 12 } : {};
  const writer = new MainWriter();
  writer.put(wire.configuration({ machine, ...pageBits, ...(shape.validateUuid ? { uuid } : {}) }));
  const openReturnPath = shape.returnPath ? [wire.command(1), wire.command(2, wire.be32(1))] : [];
  for (const command of openReturnPath) writer.put(command);

  const ramId = 1 + random.integer(4);
  const switchover = shape.style === "10" && !shape.background ? wire.command(11) : null;
  const sections = new RamSections(writer, ramId, switchover, !shape.background);
  // 8.1 sends MULTIFD_FLUSH even without multifd.
  const flushes = shape.channels > 0 || (!shape.background && random.integer(4) === 0);
  const modern = shape.style === "10" && flushes;
  const blocks = shape.blocks.map(({ name, pages }) => ({ name, bytes: pages * wire.PAGE_BYTES }));
  sections.start(wire.blockList(blocks), modern);
  const records = epochs.map((epoch) => epoch.filter((send) => onMain(send, shape)));
  if (modern) putModern(sections, records, random);
  else putLegacy(sections, records, random);

  const rest = randomRest(random, ramId);
  writer.put(rest);
  const commands = [...openReturnPath, ...sections.commands].map((bytes) =>
    bytes.subarray(1).toString("hex"),
  );
  return { machine, commands, steps: writer.steps(), rest };
}

/** Every section is an epoch. */
function putLegacy(sections: RamSections, epochs: Epochs, random: Random): void {
  for (const [n, epoch] of epochs.entries()) {
    sections.open(n === epochs.length - 1);
    for (const send of epoch) sections.record(send, random);
  }
  sections.close();
}

/** Epochs and sections begin where they like. */
function putModern(sections: RamSections, epochs: Epochs, random: Random): void {
  const breaks = random.pick([0, 0.01, 0.2]);
  // What is left at the stop travels in END; there may be nothing left.
  const left = random.integer(2);
  for (const [n, epoch] of epochs.entries()) {
    const inEnd = n + left === epochs.length;
    if (inEnd || n === 0 || random.integer(2) === 0) sections.open(inEnd);
    for (const send of epoch) {
      if (!inEnd && random.fraction() < breaks) sections.open(false);
      sections.record(send, random);
    }
    sections.flush();
  }
  if (left === 0) sections.open(true);
  sections.close();
}

function onMain({ data }: Send, { channels, zeroPages }: MigrationShape): boolean {
  return channels === 0 || (data === null && zeroPages === "legacy");
}

/** Collects bytes, and knows where barriers are. */
class MainWriter {
  readonly #steps: Buffer[][] = [[]];

  put(bytes: Buffer): void {
    this.#steps.at(-1)?.push(bytes);
  }

  /** A word that waits for every channel's next SYNC. */
  barrier(word: Buffer): void {
    this.#steps.push([word]);
  }

  steps(): Buffer[] {
    return this.#steps.map((pieces) => Buffer.concat(pieces));
  }
}

/** RAM's sections. */
class RamSections {
  readonly #writer: MainWriter;
  readonly #id: Buffer;
  readonly #switchover: Buffer | null;
  readonly #hasEnd: boolean;
  readonly commands: Buffer[] = [];
  #isOpen = false;
  #modern = false;
  #block: string | null = null;

  constructor(writer: MainWriter, id: number, switchover: Buffer | null, hasEnd: boolean) {
    this.#writer = writer;
    this.#id = wire.be32(id);
    this.#switchover = switchover;
    this.#hasEnd = hasEnd;
  }

  start(list: Buffer, modern: boolean): void {
    this.#modern = modern;
    const ram = Buffer.concat([wire.u8(3), Buffer.from("ram"), wire.be32(0), wire.be32(4)]);
    this.#writer.put(Buffer.concat([wire.u8(0x01), this.#id, ram, list]));
    this.#isOpen = true;
    if (modern) this.flush();
  }

  /** Ends the section at hand and begins another. */
  open(last: boolean): void {
    this.close();
    const isEnd = last && this.#hasEnd;
    if (isEnd && this.#switchover !== null) {
      this.#writer.put(this.#switchover);
      this.commands.push(this.#switchover);
    }
    this.#writer.put(Buffer.concat([wire.u8(isEnd ? 0x03 : 0x02), this.#id]));
    this.#isOpen = true;
  }

  /** In legacy mode the word that ends a section is a barrier. */
  close(): void {
    if (!this.#isOpen) return;
    if (this.#modern) this.#writer.put(wire.eosWord);
    else this.#writer.barrier(wire.eosWord);
    this.#writer.put(Buffer.concat([wire.u8(0x7e), this.#id]));
    this.#isOpen = false;
  }

  flush(): void {
    this.#writer.barrier(wire.flushWord);
  }

  record({ block, offset, data }: Send, random: Random): void {
    // QEMU names a block again where it lost track, which is allowed anywhere.
    const name = block === this.#block && random.integer(16) > 0 ? null : block;
    this.#block = block;
    this.#writer.put(data === null ? wire.zeroRecord(offset, name) : wire.pageRecord(offset, name, data));
  }
}

/** Devices whose states look like parts of a stream, EOF byte and vmdescription. */
function randomRest(random: Random, ramId: number): Buffer {
  const traps = [
    Buffer.from([0x00, 0x06, 0x00, 0x00, 0x00, 0x10, 0x7b, 0x22]),
    Buffer.concat([wire.eosWord, wire.u8(0x7e), wire.be32(ramId), wire.u8(0x03), wire.be32(ramId)]),
    wire.be32(0x11223344),
    Buffer.from('{"page_size":4096,"devices":[]}'),
  ];
  const names = ["timer", "cpu", "cpu_common", "slirp", "0000:00:1f.0/ICH9LPC", "ram"].slice(
    random.integer(5),
  );
  const sections = names.map((name, n) => {
    const noise = Buffer.from(Array.from({ length: random.integer(300) }, () => random.integer(256)));
    return wire.fullSection(ramId + 1 + n, name, Buffer.concat([noise, random.pick(traps), noise]));
  });
  return Buffer.concat([...sections, wire.eofByte, wire.vmdescription(wire.vmdescriptionJson(names))]);
}
