import { availableParallelism } from "node:os";
import { followed } from "../../formats/mapped-ram/main-steps.ts";
import { MAIN_HEADER_BYTES } from "../../formats/migration/wire.ts";
import { askReceived } from "../../formats/postcopy/commands.ts";
import { postcopyOpening } from "../../formats/postcopy/opening.ts";
import { readSpan } from "../../io/file-io.ts";
import type { PagingTask, ReadPart, ServePart } from "../../pool/messages.ts";
import { Slots } from "../../pool/paging/slots.ts";
import { checkedSteps } from "../mapped-ram/checked-steps.ts";
import type { MappedContents } from "../mapped-ram/contents.ts";
import type { InstantOptions } from "./options.ts";
import { readPageMemory } from "./page-memory.ts";

/** Windows that a reading thread has under way: one is read while the other one waits to be sent. */
const SLOTS_PER_READER = 2;
/** QEMU takes about 1 GiB/s, whatever comes. */
const MOST_READERS = 4;

/** What goes to the destination, and who sends it. */
export interface PagingPlan {
  /** Sent with the connection itself: QEMU's main loop stands still until they come. */
  readonly firstBytes: Uint8Array;
  /** One thread speaks with the destination, the others read and check. */
  readonly threads: number;
  /** @param connection what is known only once there is one */
  tasks(connection: PagingConnection): PagingTask[];
}

export interface PagingConnection extends Pick<PagingTask, "control" | "board">, Pick<ServePart, "socketFd"> {
  /** The image, not with O_DIRECT. */
  readonly cachedFd: number;
}

/** @throws MultifdError QEMU_UNSUPPORTED (what stands before the end of RAM cannot be sent this way), IO */
export async function planPaging(
  options: InstantOptions,
  fd: number,
  contents: MappedContents,
): Promise<PagingPlan> {
  const { hostPages = {}, backgroundRate = "auto", workers } = options;
  const { stream } = contents;
  const { ramId } = followed(stream);
  const readers = workers ?? Math.min(MOST_READERS, Math.max(1, availableParallelism() - 1));
  const { memory, count } = new Slots(readers * SLOTS_PER_READER);
  const slots = { memory, count };
  const common = { fd, blocks: stream.blocks, pages: await readPageMemory(fd, contents), hostPages };
  const { firstBytes, start } = await beginning(options, fd, contents);
  return {
    firstBytes,
    threads: readers + 1,
    tasks: ({ control, board, socketFd, cachedFd }) => {
      const serve: ServePart = {
        kind: "serve",
        socketFd,
        cachedFd,
        ramId,
        backgroundRate,
        slots,
        start: start(),
      };
      const read = Array.from({ length: readers }, (_, number): ReadPart => {
        return { kind: "read", slots, first: number * SLOTS_PER_READER, count: SLOTS_PER_READER };
      });
      return [serve, ...read].map((part) => ({ ...common, control, board, part }));
    },
  };
}

async function beginning(
  { resume, hostPages = {} }: InstantOptions,
  fd: number,
  { stream }: MappedContents,
): Promise<{ firstBytes: Uint8Array; start: () => ServePart["start"] }> {
  const [first] = stream.blocks;
  if (resume && first !== undefined) {
    return { firstBytes: askReceived(first.name), start: () => ({ kind: "resume" }) };
  }
  const steps = postcopyOpening(stream, hostPages);
  const [opening, launch] = [await checkedSteps(fd, steps.opening), await checkedSteps(fd, steps.launch)];
  return {
    firstBytes: await readSpan(fd, stream.base, MAIN_HEADER_BYTES),
    start: () => ({ kind: "open", opening, launch, firstByteAt: process.hrtime.bigint() }),
  };
}
