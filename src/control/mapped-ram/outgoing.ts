import type { MappedBlock } from "../../formats/mapped-ram/model.ts";
import { bitmapOf, type Piece, piecesOf, STRETCH_BYTES } from "../../formats/mapped-ram/ranges.ts";
import { barrierCount, needsZeroPages, synthesiseMain } from "../../formats/mapped-ram/synthesis.ts";
import { barrierModeOf } from "../../formats/migration/barrier-mode.ts";
import { INIT_BYTES, PACKET_BYTES, PAGES_PER_PACKET } from "../../formats/migration/multifd-packet.ts";
import { initPacket } from "../../formats/migration/packet-writer.ts";
import {
  blockNameBytes,
  PAGE_RECORD_BYTES,
  ZERO_RECORD_BYTES,
} from "../../formats/migration/record-writer.ts";
import { MAIN_HEADER_BYTES, PAGE_SIZE } from "../../formats/migration/wire.ts";
import { readSpan } from "../../io/file-io.ts";
import type { Source } from "../../io/source.ts";
import type { ChannelPart, CheckedStep, MainPart, OutgoingTask, SynthesisTask } from "../../pool/messages.ts";
import { pagesPlan, type RingPlan } from "../../pool/ring-plan.ts";
import { SYNTHESISE } from "../../pool/worker-code.ts";
import type { ImageFacts } from "../events.ts";
import { DEFAULT_CHANNELS, type RestoreOptions } from "../options.ts";
import type { OutgoingPlan } from "../outgoing.ts";
import { checkedSteps } from "./checked-steps.ts";
import type { MappedContents } from "./contents.ts";

export type SynthesisOptions = Pick<RestoreOptions, "image" | "channels" | "zeroedRam" | "uuid">;

/**
 * A mapped-ram image goes out as the multifd migration that a QEMU would have sent which saved the VM to a socket, through
 * as many channels as are wanted.
 * @throws MultifdError QEMU_UNSUPPORTED (what stands before the end of RAM cannot be sent this way), IMAGE_DAMAGED, IO
 */
export async function planMapped(
  source: Pick<Source, "fd" | "directIo">,
  contents: MappedContents,
  options: SynthesisOptions,
): Promise<OutgoingPlan> {
  const { stream, sumsOffset, seal } = contents;
  const { channels = DEFAULT_CHANNELS, zeroedRam = false, uuid = contents.uuid } = options;
  const { fd } = source;
  const said = seal?.metadata;
  const mode = said?.barrierMode ?? barrierModeOf(stream.machine, said?.qemuVersion ?? null);
  const ring = pagesPlan(channels);
  const steps = await checkedSteps(fd, synthesiseMain(stream, channels === 0 ? null : mode));
  const tally = channels === 0 ? { packets: 0, pages: 0 } : await countPackets(fd, stream.blocks, ring);
  const records = recordBytes(contents, channels === 0, zeroedRam);
  const length = mainBytes(steps) + records;
  const main: MainPart = { kind: "main", steps, recordBytes: records, zeroedRam, length };
  const syncs = barrierCount(steps);
  const common = { fd, blocks: stream.blocks, sumsOffset, multifdChannels: channels };
  const task = (part: MainPart | ChannelPart, ring: RingPlan): Omit<SynthesisTask, keyof OutgoingTask> => {
    return { ...common, part, ring };
  };
  return {
    code: SYNTHESISE,
    channels: [
      {
        channel: "main",
        firstBytes: await readSpan(fd, stream.base, MAIN_HEADER_BYTES),
        // With channels main has zero pages only, which nobody reads.
        task: task(main, channels === 0 ? ring : { ...ring, slots: 0 }),
      },
      ...Array.from({ length: channels }, (_, id) => {
        const firstBytes = initPacket(id, uuid);
        return { channel: id, firstBytes, task: task({ kind: "multifd", id, syncs }, ring) };
      }),
    ],
    totalBytes:
      main.length +
      channels * (INIT_BYTES + syncs * PACKET_BYTES) +
      tally.packets * PACKET_BYTES +
      tally.pages * PAGE_SIZE,
    image: mappedFacts(options.image, contents, source.directIo),
  };
}

/** The image as `completed` names it. */
export function mappedFacts(
  path: string,
  { stream, uuid, seal }: MappedContents,
  directIo: boolean,
): ImageFacts {
  return {
    path,
    format: "mapped-ram",
    uuid: seal?.imageUuid ?? null,
    bytes: (seal?.imageEnd ?? stream.end) - stream.base,
    directIo,
    machine: stream.machine,
    vmUuid: uuid,
    multifdChannels: 0,
    compression: null,
  };
}

/** As many stretches as have 64 KiB of bitmap: a read for each would make a VM of a TiB wait for seconds. */
const COUNTED_BYTES = 64 * STRETCH_BYTES;

interface Tally {
  packets: number;
  pages: number;
}

/** How many packets the channels will send, and with how many pages: what the workers will do is gone through. */
async function countPackets(
  fd: number,
  blocks: readonly MappedBlock[],
  { blockBytes }: RingPlan,
): Promise<Tally> {
  const tally = { packets: 0, pages: 0 };
  for (const [number, block] of blocks.entries()) {
    for (let first = 0; first < block.usedLength; first += COUNTED_BYTES) {
      const end = Math.min(first + COUNTED_BYTES, block.usedLength);
      const { offset, length } = bitmapOf(block, { block: number, start: first, length: end - first });
      const bits = await readSpan(fd, offset, length);
      for (let start = first; start < end; start += STRETCH_BYTES) {
        const stretch = { block: number, start, length: Math.min(STRETCH_BYTES, end - start) };
        const itsBits = bits.subarray((start - first) / block.pageSize / 8);
        addPackets(tally, block, piecesOf(block, stretch, itsBits, blockBytes));
      }
    }
  }
  return tally;
}

function addPackets(tally: Tally, { pageSize }: MappedBlock, pieces: Iterable<Piece>): void {
  for (const { ranges } of pieces) {
    let bytes = 0;
    for (const { runs } of ranges) for (const { start, end } of runs) bytes += end - start;
    tally.packets += Math.ceil(bytes / pageSize / PAGES_PER_PACKET);
    tally.pages += bytes / pageSize;
  }
}

function mainBytes(steps: readonly CheckedStep[]): number {
  return steps.reduce((sum, step) => {
    if (step.kind === "bytes") return sum + step.bytes.length;
    return step.kind === "copied" ? sum + step.length : sum;
  }, MAIN_HEADER_BYTES);
}

/** What RAM takes on main. */
function recordBytes(
  { stream, presentPages }: MappedContents,
  allPages: boolean,
  zeroedRam: boolean,
): number {
  return stream.blocks.reduce((sum, block, number) => {
    const present = presentPages[number] ?? 0;
    const zeros = needsZeroPages(block, zeroedRam) ? block.usedLength / block.pageSize - present : 0;
    const pages = allPages ? present : 0;
    const name = zeros + pages > 0 ? blockNameBytes(block.name) : 0;
    return sum + name + zeros * ZERO_RECORD_BYTES + pages * PAGE_RECORD_BYTES;
  }, 0);
}
