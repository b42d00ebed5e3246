import { Buffer } from "node:buffer";
import {
  type BlockSpec,
  blockList,
  command,
  configuration,
  endSection,
  eofByte,
  eosWord,
  flushWord,
  fullSection,
  partSection,
  startSection,
  vmdescription,
  vmdescriptionJson,
} from "../../formats/migration/main-writer.ts";

/** RAM's section id; QEMU 7.2 gives it this one. */
export const RAM_ID = 2;
const FIRST_DEVICE_ID = 40;
const SWITCHOVER_START = 11;

/** What main says of a guest. */
export interface ModernMainOptions {
  readonly machine: string;
  readonly blocks: readonly BlockSpec[];
  /** With channels there is a barrier behind RAM's START and behind each pass, and as many SYNCs on each of them. */
  readonly multifd: boolean;
  /** The records in each pass over RAM: none with multifd, where all pages are on the channels. */
  readonly passes: readonly Buffer[];
  /** The state of each device behind RAM. */
  readonly devices: Readonly<Record<string, Buffer>>;
}

/** A main channel, cut where a QEMU waits for its other channels: a part with a barrier goes out when their SYNCs did. */
export interface ModernMain {
  readonly start: Buffer;
  readonly passes: readonly Buffer[];
  readonly end: Buffer;
}

/**
 * The main channel of a QEMU 10 with one of its own machine types: barriers of their own, SWITCHOVER_START, an END
 * without pages. Order and contents as captured from QEMU 10.0.2 (ram_save_setup, ram_save_iterate, migration/ram.c).
 */
export function modernMain({ machine, blocks, multifd, passes, devices }: ModernMainOptions): ModernMain {
  const end = Buffer.concat([...(multifd ? [flushWord] : []), eosWord]);
  return {
    start: Buffer.concat([
      configuration(machine),
      startSection(RAM_ID, Buffer.concat([blockList(blocks), end])),
    ]),
    passes: passes.map((records) => partSection(RAM_ID, Buffer.concat([records, end]))),
    end: Buffer.concat([command(SWITCHOVER_START), endSection(RAM_ID, eosWord), tail(devices)]),
  };
}

/** Device sections, EOF byte and vmdescription. */
export function tail(devices: Readonly<Record<string, Buffer>>): Buffer {
  const names = Object.keys(devices);
  const sections = Object.entries(devices).map(([name, state], number) =>
    fullSection(FIRST_DEVICE_ID + number, name, state),
  );
  return Buffer.concat([...sections, eofByte, vmdescription(vmdescriptionJson(names))]);
}
