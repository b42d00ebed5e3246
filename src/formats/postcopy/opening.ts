import { Buffer } from "node:buffer";
import { MultifdError } from "../../errors.ts";
import {
  bytes,
  capabilitiesBut,
  copied,
  EOS_BYTES,
  type FileStep,
  followed,
  SIZE_BYTES,
  stepLength,
} from "../mapped-ram/main-steps.ts";
import type { MappedBlock, MappedStream, RamSection } from "../mapped-ram/model.ts";
import { RAM_FLAGS } from "../migration/ram-records.ts";
import { MAIN_HEADER_BYTES, PAGE_SIZE } from "../migration/wire.ts";
import { be64, counted } from "../migration/words.ts";
import { advise, discard, LISTEN, OPEN_RETURN_PATH, packaged, ping, RUN } from "./commands.ts";

/** Page size of each RAMBlock at the destination, by its name; 4096 where it is not named. */
export type HostPages = Readonly<Record<string, number>>;

/** What a postcopy source sends before pages, behind the first 8 bytes of main. */
export interface Opening {
  /** The destination has read and accepted all of it once it answers PONG_OPENED. */
  readonly opening: readonly FileStep[];
  /** Devices, and at its end the word to run the guest. Once it answers PONG_LOADED, all before that word was done. */
  readonly launch: readonly FileStep[];
}

export const PONG_OPENED = 1;
export const PONG_LOADED = 2;

/** MAX_VM_CMD_PACKAGED_SIZE, QEMU 7.2 to 10.0, migration/savevm.h. */
const PACKAGE_LIMIT: number = 2 ** 32 - 1;
/** What QEMU 10 writes between RAM's sections, and what only VFIO listens to: it belongs to a migration without postcopy. */
const SWITCHOVER_START_BYTES = 5;

/**
 * Makes what a source in postcopy would have sent out of the stream in a mapped-ram file.
 * The sequence is that of qemu_savevm_state_header … qemu_savevm_send_postcopy_run, QEMU 7.2.22 and 10.0.2.
 * @throws MultifdError QEMU_UNSUPPORTED: what stands before the end of RAM cannot be sent this way
 */
export function postcopyOpening(stream: MappedStream, hostPages: HostPages): Opening {
  const { capabilities, ram } = followed(stream);
  const { blocks } = stream;
  const [start, ...others] = ram as [RamSection, ...RamSection[]];
  const end = others.at(-1) as RamSection;
  const first = blocks[0] as MappedBlock;
  const opening: FileStep[] = [
    copied(stream.base + MAIN_HEADER_BYTES, capabilities.start),
    bytes(capabilitiesBut(stream.capabilities)),
    copied(capabilities.end, start.start),
    bytes(OPEN_RETURN_PATH),
    bytes(advise(pageSizes(blocks, hostPages), PAGE_SIZE)),
    copied(start.start, start.payload + SIZE_BYTES),
    bytes(blockList(blocks, hostPages)),
    bytes(be64(RAM_FLAGS.EOS)),
    copied(start.eos + EOS_BYTES, start.end),
    ...between([start, ...others]),
    bytes(discard(first.name, 0, hostPageOf(first, hostPages))),
    bytes(ping(PONG_OPENED)),
  ];
  const load: FileStep[] = [
    bytes(LISTEN),
    copied(end.end, stream.eofByte),
    bytes(ping(PONG_LOADED)),
    bytes(RUN),
  ];
  const length = load.reduce((sum, step) => sum + stepLength(step), 0);
  if (length > PACKAGE_LIMIT) throw tooLarge(length);
  return { opening: present(opening), launch: present([bytes(packaged(length)), ...load]) };
}

export function hostPageOf({ name }: Pick<MappedBlock, "name">, hostPages: HostPages): number {
  return hostPages[name] ?? PAGE_SIZE;
}

function pageSizes(blocks: readonly MappedBlock[], hostPages: HostPages): number[] {
  return [...new Set(blocks.map((block) => hostPageOf(block, hostPages)))];
}

/** A block whose pages are larger than the target's says so behind its length: ram_save_setup, migration/ram.c. */
function blockList(blocks: readonly MappedBlock[], hostPages: HostPages): Buffer {
  return Buffer.concat(
    blocks.flatMap((block) => {
      const hostPage = hostPageOf(block, hostPages);
      const size = hostPage === PAGE_SIZE ? [] : [be64(hostPage)];
      return [counted(block.name), be64(block.usedLength), ...size];
    }),
  );
}

/** Devices that must come before RAM's pages (virtio-mem) stand between RAM's sections. */
function between(ram: readonly RamSection[]): FileStep[] {
  return ram.slice(1).flatMap((section, number) => {
    const from = (ram[number] as RamSection).end;
    const length = section.start - from;
    return length === SWITCHOVER_START_BYTES ? [] : [copied(from, section.start)];
  });
}

function present(steps: readonly FileStep[]): FileStep[] {
  return steps.filter((step) => stepLength(step) > 0);
}

function tooLarge(length: number): MultifdError {
  const text = `the devices of this image have ${length} bytes, and QEMU takes less than 4 GiB of them while the guest's RAM is missing: restore it without --instant`;
  return new MultifdError("QEMU_UNSUPPORTED", text, { length });
}
