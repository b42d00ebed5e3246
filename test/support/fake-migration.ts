import { Buffer } from "node:buffer";
import { type ModernMain, modernMain, RAM_ID, tail } from "../../src/bench/generator/migration.ts";
import * as wire from "./stream-builder.ts";

export { tail };

const PAGES_PER_PACKET = 128;

/** A guest as small as a test wants it. */
export interface FakeMigrationOptions {
  /**
   * "7.2": legacy barriers, zero pages on main, SYNC merged with data and followed by an empty packet with
   * stale fields, pages sent twice. "10": MULTIFD_FLUSH barriers, zero pages in packets, SYNC alone.
   */
  readonly style?: "7.2" | "10";
  /** 0 is a migration without multifd: all pages on main. */
  readonly channels?: number;
  readonly blocks?: readonly wire.BlockSpec[];
  /** Every n-th page is zero; 0 makes none so. */
  readonly zeroEvery?: number;
  /** Further rounds in which the guest's dirtied pages (every fifth) travel again. */
  readonly extraRounds?: number;
  readonly uuid?: string;
  readonly machine?: string;
  /** The state of each device section behind RAM. */
  readonly devices?: Readonly<Record<string, Buffer>>;
  /** What travels instead of `pages` raw pages, for compressed channels, and its method bits. */
  readonly compress?: { readonly flags: number; readonly payload: (pages: number) => Buffer };
}

export interface FakeMigration {
  readonly main: Buffer;
  readonly channels: readonly Buffer[];
}

interface Page {
  readonly block: string;
  readonly address: number;
  readonly zero: boolean;
}

export const SMALL_RAM: readonly wire.BlockSpec[] = [
  { name: "mem", bytes: 40 * wire.PAGE_BYTES },
  { name: "pc.bios", bytes: 4 * wire.PAGE_BYTES },
];

/** A whole, consistent migration: every page travels, and SYNCs and barriers pair up. */
export function buildMigration(options: FakeMigrationOptions = {}): FakeMigration {
  const { style = "7.2", channels = 2, blocks = SMALL_RAM, uuid = wire.ZERO_UUID } = options;
  const pages = listPages(blocks, options.zeroEvery ?? 3);
  const dirty = pages.filter((_, i) => i % 5 === 0);
  const rounds = [pages, ...Array.from({ length: options.extraRounds ?? 1 }, () => dirty)];
  const multifd = Array.from({ length: channels }, (_, id) => [wire.initPacket(id, uuid), wire.syncPacket()]);
  const records = rounds.map((round) => {
    const onMain = round.filter((page) => channels === 0 || (style === "7.2" && page.zero));
    const onChannels = round.filter((page) => !onMain.includes(page));
    for (const [id, channel] of multifd.entries()) {
      const share = onChannels.filter((_, n) => n % channels === id);
      channel.push(...(style === "7.2" ? oldPackets(share, options) : newPackets(share, options)));
    }
    return recordsOf(onMain);
  });
  const machine = options.machine ?? (style === "10" ? "pc-q35-10.0" : "pc-q35-7.2");
  const devices = options.devices ?? { timer: Buffer.alloc(40, 0x11), cpu: Buffer.alloc(600, 0x7e) };
  const main =
    style === "7.2"
      ? oldMain(machine, blocks, records, devices)
      : wholeOf(modernMain({ machine, blocks, multifd: channels > 0, passes: records, devices }));
  return { main, channels: multifd.map((packets) => Buffer.concat(packets)) };
}

function wholeOf({ start, passes, end }: ModernMain): Buffer {
  return Buffer.concat([start, ...passes, end]);
}

/** 7.2: EOS is the barrier, and the last pages travel in RAM's END. */
function oldMain(
  machine: string,
  blocks: readonly wire.BlockSpec[],
  records: readonly Buffer[],
  devices: Readonly<Record<string, Buffer>>,
): Buffer {
  const sections = records.map((pages, i) => {
    const section = i === records.length - 1 ? wire.endSection : wire.partSection;
    return section(RAM_ID, Buffer.concat([pages, wire.eosWord]));
  });
  const list = Buffer.concat([wire.blockList(blocks), wire.eosWord]);
  return Buffer.concat([
    wire.configuration({ machine }),
    wire.startSection(RAM_ID, list),
    ...sections,
    tail(devices),
  ]);
}

function listPages(blocks: readonly wire.BlockSpec[], zeroEvery: number): Page[] {
  return blocks.flatMap(({ name, bytes }) =>
    Array.from({ length: bytes / wire.PAGE_BYTES }, (_, i) => ({
      block: name,
      address: i * wire.PAGE_BYTES,
      zero: zeroEvery > 0 && i % zeroEvery === 1,
    })),
  );
}

/** The page's content: its block and address in every byte pattern, so that a test can tell pages apart. */
export function pageContent(block: string, address: number): Buffer {
  return Buffer.alloc(wire.PAGE_BYTES, `${block}@${address.toString(16)};`);
}

function recordsOf(pages: readonly Page[]): Buffer {
  let last: string | null = null;
  const out = pages.map(({ block, address, zero }) => {
    const name = block === last ? null : block;
    last = block;
    if (zero) return wire.zeroRecord(address, name);
    return wire.pageRecord(address, name, pageContent(block, address));
  });
  return Buffer.concat(out);
}

/** 7.2: the last page of a packet may come again, SYNC rides on the last data, an empty packet follows. */
function oldPackets(pages: readonly Page[], options: FakeMigrationOptions): Buffer[] {
  const groups = groupPages(pages);
  const last = groups.at(-1);
  if (last === undefined) return [wire.syncPacket()];
  const repeated = last.length < PAGES_PER_PACKET ? [...last, ...last.slice(-1)] : last;
  const stale = { block: last[0]?.block ?? "", nextPacketSize: 524288 };
  return [
    ...groups.slice(0, -1).map((group) => dataPacket(group, 0, options)),
    dataPacket(repeated, 0x01, options),
    wire.packet(stale),
  ];
}

function newPackets(pages: readonly Page[], options: FakeMigrationOptions): Buffer[] {
  return [...groupPages(pages).map((group) => dataPacket(group, 0, options)), wire.syncPacket()];
}

/** Pages of one block, at most a packet full of them. */
function groupPages(pages: readonly Page[]): Page[][] {
  const groups: Page[][] = [];
  for (const page of pages) {
    const open = groups.at(-1);
    if (open === undefined || open[0]?.block !== page.block || open.length === PAGES_PER_PACKET) {
      groups.push([page]);
    } else {
      open.push(page);
    }
  }
  return groups;
}

function dataPacket(pages: readonly Page[], flags: number, options: FakeMigrationOptions): Buffer {
  const normal = pages.filter((page) => !page.zero);
  const raw = () => Buffer.concat(normal.map(({ block, address }) => pageContent(block, address)));
  return wire.packet({
    flags: flags | (options.compress?.flags ?? 0),
    block: pages[0]?.block ?? "",
    normal: normal.map((page) => page.address),
    zero: pages.filter((page) => page.zero).map((page) => page.address),
    payload: options.compress?.payload(normal.length) ?? raw(),
  });
}
