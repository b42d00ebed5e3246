import { Buffer } from "node:buffer";
import { RAM_FLAGS } from "../migration/ram-records.ts";
import type { BarrierMode } from "../migration/summary.ts";
import { MAIN_HEADER_BYTES } from "../migration/wire.ts";
import { be32, be64, counted } from "../migration/words.ts";
import {
  bytes,
  capabilitiesBut,
  copied,
  EOS_BYTES,
  type FileStep,
  followed,
  SIZE_BYTES,
  stepLength,
} from "./main-steps.ts";
import type { MappedBlock, MappedStream, RamSection } from "./model.ts";

/**
 * The main channel that a QEMU would have sent which saved the VM of a mapped-ram file to a socket. It is told in steps,
 * because neither its pages nor the devices' state need ever be held as a whole.
 */
export type MainStep =
  | FileStep
  /** What follows is a barrier: only when each channel has sent as many SYNC packets as there are barriers up to here. */
  | { readonly kind: "barrier" }
  /** Records of RAM pages. */
  | { readonly kind: "pages" }
  /** What follows makes the destination's VM: only when RAM is there. */
  | { readonly kind: "tail" };

const SECTION_PART = 0x02;
const SECTION_FOOTER = 0x7e;

/**
 * Makes the main channel of a multifd migration out of the stream in a mapped-ram file: without that capability, its
 * headers, bitmaps and pages, and with the barriers that `mode` wants.
 * @param mode null: without multifd, and so without barriers
 * @returns what follows the first 8 bytes, which say that this is main
 * @throws MultifdError QEMU_UNSUPPORTED: what stands before the end of RAM cannot be sent this way
 */
export function synthesiseMain(stream: MappedStream, mode: BarrierMode | null): MainStep[] {
  const { capabilities, ramId, ram } = followed(stream);
  const [start, ...others] = ram as [RamSection, ...RamSection[]];
  const end = others.pop() as RamSection;
  const steps = [
    copied(stream.base + MAIN_HEADER_BYTES, capabilities.start),
    bytes(capabilitiesBut(stream.capabilities)),
    copied(capabilities.end, start.payload + SIZE_BYTES),
    bytes(blockList(stream.blocks)),
    ...sectionEnd(mode),
    copied(start.eos + EOS_BYTES, start.end),
  ];
  // Where QEMU's first PART stood: devices that must come before RAM's pages (virtio-mem) stand before it.
  const pagesAt = others[0]?.start ?? end.start;
  let from = start.end;
  for (const section of [...others, end]) {
    steps.push(copied(from, section.start));
    if (section.start === pagesAt) steps.push(...part(ramId, mode));
    from = section.end;
  }
  return [
    ...steps,
    copied(end.start, end.payload),
    ...(mode === "legacy" ? [BARRIER] : []),
    copied(end.eos, end.end),
    { kind: "tail" } as const,
    copied(end.end, stream.end),
  ].filter((step) => !isEmpty(step));
}

/** How many barriers main has, and SYNC packets each channel. */
export function barrierCount(steps: readonly MainStep[]): number {
  return steps.filter(({ kind }) => kind === "barrier").length;
}

/**
 * Smaller blocks are firmware, its tables and option ROMs as a rule. A new QEMU fills them before it loads anything, and
 * not always with what the saved one had: their zero pages are never left out.
 */
const LEAST_FRESH_BYTES: number = 64 * 1024 * 1024;

/**
 * Whether the zero pages of a block must be sent.
 * @param zeroedRam the destination's RAM is known to be zero
 */
export function needsZeroPages({ usedLength }: MappedBlock, zeroedRam: boolean): boolean {
  return !zeroedRam || usedLength < LEAST_FRESH_BYTES;
}

const BARRIER: MainStep = { kind: "barrier" };

function blockList(blocks: readonly MappedBlock[]): Buffer {
  return Buffer.concat(blocks.flatMap(({ name, usedLength }) => [counted(name), be64(usedLength)]));
}

function part(ramId: number, mode: BarrierMode | null): MainStep[] {
  const footer = Buffer.concat([Buffer.from([SECTION_FOOTER]), be32(ramId)]);
  return [
    bytes(Buffer.concat([Buffer.from([SECTION_PART]), be32(ramId)])),
    { kind: "pages" },
    ...sectionEnd(mode),
    bytes(footer),
  ];
}

/** What ends START and PART: EOS, which is a barrier in legacy mode, where the modern one has a word of its own. */
function sectionEnd(mode: BarrierMode | null): MainStep[] {
  const words = mode === "modern" ? [RAM_FLAGS.MULTIFD_FLUSH, RAM_FLAGS.EOS] : [RAM_FLAGS.EOS];
  return [...(mode === null ? [] : [BARRIER]), bytes(Buffer.concat(words.map(be64)))];
}

function isEmpty(step: MainStep): boolean {
  return (step.kind === "bytes" || step.kind === "copied") && stepLength(step) === 0;
}
