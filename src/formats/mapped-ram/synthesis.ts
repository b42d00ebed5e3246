import { Buffer } from "node:buffer";
import { MultifdError } from "../../errors.ts";
import { MAPPED_RAM } from "../migration/configuration.ts";
import { RAM_FLAGS } from "../migration/ram-records.ts";
import type { BarrierMode } from "../migration/summary.ts";
import { PAGE_SIZE } from "../migration/wire.ts";
import { be32, be64, counted } from "../migration/words.ts";
import type { Landmarks, MappedBlock, MappedStream, RamSection } from "./model.ts";

/**
 * The main channel that a QEMU would have sent which saved the VM of a mapped-ram file to a socket. It is told in steps,
 * because neither its pages nor the devices' state need ever be held as a whole.
 */
export type MainStep =
  | { readonly kind: "bytes"; readonly bytes: Uint8Array }
  /** What stands at this place of the file, as it is. */
  | { readonly kind: "copied"; readonly offset: number; readonly length: number }
  /** What follows is a barrier: only when each channel has sent as many SYNC packets as there are barriers up to here. */
  | { readonly kind: "barrier" }
  /** Records of RAM pages. */
  | { readonly kind: "pages" }
  /** What follows makes the destination's VM: only when RAM is there. */
  | { readonly kind: "tail" };

const SECTION_PART = 0x02;
const SECTION_FOOTER = 0x7e;
const SUBSECTION = 0x05;
/** "QEVM" and version 3. */
export const MAIN_HEADER_BYTES = 8;
/** The word with the size of RAM. */
const SIZE_BYTES = 8;

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

const EOS_BYTES = 8;
const BARRIER: MainStep = { kind: "barrier" };

function followed({ landmarks, undecided, capabilities, pageSize }: MappedStream): Landmarks {
  const instead = "let QEMU read it itself (--engine file)";
  if (capabilities.includes("x-ignore-shared")) {
    throw unsupported("it was saved with x-ignore-shared, so that shared RAM is not in it", "save again");
  }
  if (landmarks === null) throw unsupported(undecided.at(-1) ?? "its RAM cannot be followed", instead);
  if (pageSize !== PAGE_SIZE) {
    throw unsupported(`its pages have ${pageSize} bytes, and multifd packets are known for 4096`, instead);
  }
  return landmarks;
}

function unsupported(why: string, instead: string): MultifdError {
  const text = `this mapped-ram image cannot be fed to a QEMU as a migration: ${why}; ${instead}`;
  return new MultifdError("QEMU_UNSUPPORTED", text, {});
}

/** vmstate_configuration of QEMU 10.0.2: the loader wants the list to be what is on at the destination. */
function capabilitiesBut(capabilities: readonly string[]): Buffer {
  const left = capabilities.filter((name) => name !== MAPPED_RAM);
  if (left.length === 0) return Buffer.alloc(0);
  return Buffer.concat([
    Buffer.from([SUBSECTION]),
    counted("configuration/capabilities"),
    be32(1),
    be32(left.length),
    ...left.map(counted),
  ]);
}

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

function bytes(content: Uint8Array): MainStep {
  return { kind: "bytes", bytes: content };
}

function copied(start: number, end: number): MainStep {
  return { kind: "copied", offset: start, length: end - start };
}

function isEmpty(step: MainStep): boolean {
  return (step.kind === "bytes" && step.bytes.length === 0) || (step.kind === "copied" && step.length === 0);
}
