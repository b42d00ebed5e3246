import { parseAddress } from "../../channels/address.ts";
import { MultifdError } from "../../errors.ts";
import type { MappedBlock } from "../../formats/mapped-ram/model.ts";
import { judgeCompleteness } from "../../formats/migration/completeness.ts";
import { ControlBlock } from "../../pool/control-block.ts";
import { digestOf, type RamMemory, RamTables, reserveRamMemory } from "../../pool/placing/ram-tables.ts";
import { newRegionBits } from "../../pool/placing/regions.ts";
import { drainPlan } from "../../pool/ring-plan.ts";
import { PLACE } from "../../pool/worker-code.ts";
import { throwIfAborted } from "../cancellation.ts";
import { isPresent } from "../mapped-ram/absent.ts";
import { Meter } from "../meter.ts";
import { DEFAULT_CHANNELS, type RunOptions } from "../options.ts";
import { sortStreams } from "../streams.ts";
import { takeIn } from "../take-in.ts";
import { checkDiffOptions } from "../validate.ts";
import { withSource } from "./source.ts";
import { transfer } from "./transfer.ts";

export interface DiffOptions extends RunOptions {
  /** The other image. */
  readonly other: string;
  readonly otherOffset?: number | undefined;
}

/** How the RAM of two saved VMs differs. */
export interface DiffReport {
  readonly path: string;
  readonly other: string;
  /** RAM of the blocks that both have. */
  readonly bytes: number;
  /** Pages of the blocks that both have, and how many of them differ. */
  readonly pages: number;
  readonly differing: number;
  readonly blocks: readonly BlockDiff[];
  /** Names of blocks that only one of them has, or that have another size there. */
  readonly unmatched: readonly string[];
  readonly elapsedMs: number;
}

export interface BlockDiff {
  readonly name: string;
  readonly pages: number;
  readonly differing: number;
  /** Byte offset within the block; null: none differs. */
  readonly firstDiffering: number | null;
}

/**
 * Compares the RAM of two saved VMs of any kind page by page, each by 64 bits of its SHA-1. Of each image 8 bytes are held
 * for each page: 2 MiB for each GiB of RAM.
 * @throws MultifdError what verify() throws, UNSUPPORTED_STREAM
 */
export async function diff(options: DiffOptions): Promise<DiffReport> {
  checkDiffOptions(options);
  throwIfAborted(options.signal);
  const meter = new Meter();
  const { image, other, otherOffset } = options;
  const a = await digestsOf(options);
  const b = await digestsOf({ ...options, image: other, offset: otherOffset });
  const blocks: BlockDiff[] = [];
  const unmatched: string[] = [];
  let bytes = 0;
  for (const [number, block] of a.blocks.entries()) {
    const twin = b.numberOf(block.name);
    if (twin === undefined || b.blocks[twin]?.usedLength !== block.usedLength) unmatched.push(block.name);
    else {
      bytes += block.usedLength;
      blocks.push(compareBlocks(block, pagesOf(a, number), pagesOf(b, twin)));
    }
  }
  for (const { name } of b.blocks) if (a.numberOf(name) === undefined) unmatched.push(name);
  const sum = (what: "pages" | "differing"): number => blocks.reduce((all, block) => all + block[what], 0);
  return {
    ...{ path: image, other, bytes, pages: sum("pages"), differing: sum("differing"), blocks, unmatched },
    elapsedMs: meter.elapsedMs,
  };
}

async function digestsOf(options: RunOptions): Promise<RamTables> {
  return await withSource(options, async (source) => {
    const plan = await source.plan(source.channels ?? DEFAULT_CHANNELS, true);
    const channels = plan.channels.length - 1;
    const ram = reserveRamMemory("digests");
    const control = new ControlBlock();
    const taken = await transfer(options, plan, ({ listen, signal, onEvent }) =>
      takeIn(
        {
          ...{ address: parseAddress(listen), control, meter: new Meter(), code: PLACE },
          intake: {
            ...{ barriers: true, prepare: () => Promise.resolve() },
            task: (connection, { workerFd }) => digestTask(connection, workerFd, control, ram),
          },
        },
        {
          ...{ image: options.image, channels, signal, onEvent },
          ...{ workers: options.workers, log: options.log },
        },
        async (taken) => taken,
      ),
    );
    const streams = sortStreams(taken.map(({ summary }) => summary));
    const judged = judgeCompleteness(streams?.main ?? null, streams?.multifd ?? [], channels);
    if (judged.verdict === "incomplete") {
      const text = `${options.image} holds no whole migration: ${judged.reasons.join("; ")}`;
      throw new MultifdError("IMAGE_DAMAGED", text, {});
    }
    return new RamTables(ram);
  });
}

function digestTask(connection: number, socketFd: number, control: ControlBlock, ram: RamMemory): object {
  return {
    ...{ connection, socketFd, control: control.memory, ...drainPlan(connection) },
    ...{
      image: { fd: -1, base: 0, directIo: false },
      sparse: false,
      capacity: null,
      maxBytes: null,
      rate: null,
    },
    ...{ ram, regions: newRegionBits(), work: { kind: "digest" } },
  };
}

/** The digest of each page of a block, whether the image has it or not. */
type PageDigest = (page: number) => bigint;

function pagesOf(ram: RamTables, number: number): PageDigest {
  const bits = ram.bitmap(number);
  const digests = ram.digests(number);
  const { pageSize } = ram.blocks[number] as MappedBlock;
  const zero = digestOf(new Uint8Array(pageSize));
  return (page) => (isPresent(bits, page) ? (digests[page] as bigint) : zero);
}

function compareBlocks({ name, usedLength, pageSize }: MappedBlock, a: PageDigest, b: PageDigest): BlockDiff {
  const pages = usedLength / pageSize;
  let differing = 0;
  let first: number | null = null;
  for (let page = 0; page < pages; page++) {
    if (a(page) === b(page)) continue;
    differing++;
    first ??= page * pageSize;
  }
  return { name, pages, differing, firstDiffering: first };
}
