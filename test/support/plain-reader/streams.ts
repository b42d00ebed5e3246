import { Buffer } from "node:buffer";
import { type Init, readChannel, type Write } from "./channel.ts";
import { Cursor, demand } from "./cursor.ts";
import { FLAG, type ListedBlock, type MainStream, PAGE, readBlockList, readMain } from "./main-stream.ts";

export interface AppliedBlock {
  readonly name: string;
  readonly bytes: Buffer;
  /** How each page came last; null: it never came, and is zero. */
  readonly came: readonly ("data" | "zero" | null)[];
}

export interface Applied extends MainStream {
  readonly blocks: readonly AppliedBlock[];
  /** Which words of main are barriers. */
  readonly barrierMode: "legacy" | "modern";
  /** Barriers on main, each with a SYNC on every channel. */
  readonly barriers: number;
}

/**
 * Does to empty RAM what a migration's streams say, epoch by epoch: first all of main and of every channel up to their first
 * barrier, then up to the second, and so on. Without channels main alone, in its order.
 * Throws when the streams contradict each other or themselves, and when the outcome would depend on the order within an epoch.
 */
export function applyStreams(mainBytes: Buffer, channelBytes: readonly Buffer[]): Applied {
  const { main, blocks, barrierMode, epochs } = readMainEpochs(mainBytes);
  const channels = channelBytes.map(readChannel);
  checkInits(channels, main.uuid);
  const ram = new Ram(blocks);
  const barriers = epochs.length - 1;
  for (const { id, epochs: own } of channels) {
    demand(
      own.length === epochs.length,
      `channel ${id} has ${own.length - 1} SYNCs, main ${barriers} barriers`,
    );
  }
  for (const [number, onMain] of epochs.entries()) {
    const writes = [...onMain, ...channels.flatMap(({ epochs: own }) => own[number] ?? [])];
    const last = number === barriers && channels.length > 0;
    demand(!last || writes.length === 0, `${writes.length} pages came behind the last barrier`);
    for (const write of writes) ram.apply(write, channels.length === 0 ? null : number);
  }
  return { ...main, blocks: ram.blocks(), barrierMode, barriers };
}

function checkInits(inits: readonly Init[], mainUuid: string | null): void {
  const ids = inits.map(({ id }) => id).sort((a, b) => a - b);
  demand(
    ids.every((id, n) => id === n),
    `the channels call themselves ${ids.join()}`,
  );
  const uuids = new Set([...inits.map(({ uuid }) => uuid), ...(mainUuid === null ? [] : [mainUuid])]);
  demand(uuids.size <= 1, `the streams are of different VMs: ${[...uuids].join()}`);
}

interface MainEpochs {
  readonly main: MainStream;
  readonly blocks: readonly ListedBlock[];
  readonly barrierMode: "legacy" | "modern";
  /** What stands before the first barrier, between the first and the second … and behind the last. */
  readonly epochs: readonly (readonly Write[])[];
}

function readMainEpochs(bytes: Buffer): MainEpochs {
  let blocks: ListedBlock[] = [];
  let barrier: number = FLAG.EOS;
  let block = "";
  const epochs: Write[][] = [[]];
  const readRecords = (cursor: Cursor): void => {
    for (;;) {
      const at = cursor.at;
      const word = cursor.u64();
      const flags = word % PAGE;
      const offset = word - flags;
      if (word === barrier) epochs.push([]);
      if (word === FLAG.EOS) return;
      if (word === FLAG.FLUSH && barrier === FLAG.FLUSH) continue;
      const kind = flags & ~FLAG.CONTINUE;
      demand(kind === FLAG.ZERO || kind === FLAG.PAGE, `RAM has the word 0x${word.toString(16)} at ${at}`);
      if (kind === flags) block = cursor.counted();
      if (kind === FLAG.ZERO) demand(cursor.u8() === 0, `the zero page at ${at} is of something else`);
      epochs.at(-1)?.push({ block, offset, data: kind === FLAG.PAGE ? cursor.take(PAGE) : null });
    }
  };
  const main = readMain(new Cursor(bytes), {
    start: (cursor, { capabilities }) => {
      const shared = capabilities.includes("x-ignore-shared");
      blocks = readBlockList(cursor, (listed) => {
        if (shared) cursor.u64(); // the guest physical address
        return listed;
      });
      if (cursor.bytes.readBigUInt64BE(cursor.at) === BigInt(FLAG.FLUSH)) barrier = FLAG.FLUSH;
      readRecords(cursor);
    },
    more: readRecords,
  });
  return { main, blocks, barrierMode: barrier === FLAG.FLUSH ? "modern" : "legacy", epochs };
}

/** RAM that remembers of each page when it came and how. */
class Ram {
  readonly #blocks = new Map<string, { bytes: Buffer; came: ("data" | "zero" | null)[]; epochs: number[] }>();
  /** Pages that came differently in one epoch and not in a later one: name and page. */
  readonly #doubtful = new Set<string>();

  constructor(blocks: readonly ListedBlock[]) {
    for (const { name, bytes } of blocks) {
      const pages = bytes / PAGE;
      const fresh = { came: new Array<null>(pages).fill(null), epochs: new Array<number>(pages).fill(-1) };
      this.#blocks.set(name, { bytes: Buffer.alloc(bytes), ...fresh });
    }
  }

  /** @param epoch null: writes come in an order */
  apply({ block: name, offset, data }: Write, epoch: number | null): void {
    const block = this.#blocks.get(name);
    demand(block !== undefined, `a page of "${name}", which is not listed`);
    const possible = offset % PAGE === 0 && offset + PAGE <= block.bytes.length;
    demand(possible, `a page at ${offset} of "${name}", which has ${block.bytes.length} bytes`);
    const page = offset / PAGE;
    const place = block.bytes.subarray(offset, offset + PAGE);
    const content = data ?? Buffer.alloc(PAGE);
    const key = `${name} page ${page}`;
    if (epoch === null || block.epochs[page] !== epoch) this.#doubtful.delete(key);
    else if (!place.equals(content)) this.#doubtful.add(key);
    content.copy(place);
    block.came[page] = data === null ? "zero" : "data";
    block.epochs[page] = epoch ?? 0;
  }

  blocks(): AppliedBlock[] {
    const [doubtful] = this.#doubtful;
    demand(doubtful === undefined, `${doubtful} came twice in its last epoch, with different content`);
    return [...this.#blocks].map(([name, { bytes, came }]) => ({ name, bytes, came }));
  }
}
