import { blocks } from "../formats/image/blocks.ts";
import { MAX_BLOCK_BYTES } from "../formats/image/model.ts";
import type { OpenedImage } from "../formats/image/open.ts";
import { giveUuid } from "../formats/migration/packet-writer.ts";
import { alignedBuffer } from "../io/slab-arena.ts";
import type { Source } from "../io/source.ts";
import { readBlock, StoredChecksums } from "../pool/block-reader.ts";
import type { FeedTask, OutgoingTask } from "../pool/messages.ts";
import { feedSlots } from "../pool/ring-plan.ts";
import { FEED } from "../pool/worker-code.ts";
import { throwIfAborted } from "./cancellation.ts";
import { imageFacts, nameOf } from "./image-facts.ts";
import type { RestoreOptions } from "./options.ts";
import type { OutgoingPlan } from "./outgoing.ts";

/** What a loading QEMU waits for on a new connection: the QEVM header of main, the init packet of a channel. */
const FIRST_BYTES = { main: 8, multifd: 64 } as const;

/**
 * An image of streams goes out as it was saved; but for the UUID where the destination is a clone.
 * @throws MultifdError IMAGE_DAMAGED, IO, CANCELLED
 */
export async function planStreams(
  source: Source,
  image: OpenedImage,
  options: Pick<RestoreOptions, "image" | "uuid" | "signal">,
): Promise<OutgoingPlan> {
  const { channels } = image.index;
  const { fd, base, directIo } = source;
  const firstBytes = await readFirstBytes(source, image, options);
  return {
    code: FEED,
    channels: channels.map((record, number) => {
      const task: Omit<FeedTask, keyof OutgoingTask> = {
        image: { fd, base, directIo },
        record,
        slots: feedSlots(record.blockBytes, channels.length),
        multifdChannels: channels.length - 1,
      };
      return { channel: nameOf(record), firstBytes: firstBytes[number] as Uint8Array, task };
    }),
    totalBytes: channels.reduce((sum, { length }) => sum + length, 0),
    image: imageFacts(options.image, image.superblock, image.metadata, directIo),
  };
}

/** Their blocks are checked like any other. */
async function readFirstBytes(
  source: Source,
  image: OpenedImage,
  { uuid, signal }: Pick<RestoreOptions, "uuid" | "signal">,
): Promise<readonly Uint8Array[]> {
  const slot = alignedBuffer(MAX_BLOCK_BYTES);
  const checksums = new StoredChecksums(source);
  const firstBytes: Uint8Array[] = [];
  for (const record of image.index.channels) {
    throwIfAborted(signal);
    const [block] = blocks(record);
    if (block !== undefined) await readBlock(source, block, slot, checksums);
    const first = slot.slice(0, Math.min(FIRST_BYTES[record.kind], record.length));
    if (record.kind === "multifd" && uuid !== undefined) giveUuid(first, uuid);
    firstBytes.push(first);
  }
  return firstBytes;
}
