import { closeSync, openSync, writeSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { restore } from "../../src/index.ts";
import { exampleMapped } from "../support/example-mapped.ts";
import { RecordingDestination } from "../support/recording-destination.ts";
import { useScratch } from "../support/scratch.ts";

const scratch = useScratch();
const example = exampleMapped();
const [block] = example.map.blocks;
const bitmap = block?.bitmapOffset as number;

/**
 * Restores a file in which one byte changes when all was checked: main is connected, and waits at its first barrier for the
 * channel that comes next.
 */
async function expectFound(content: Uint8Array, offset: number, words: RegExp): Promise<void> {
  const image = scratch.file("image");
  await writeFile(image, content);
  const destination = await RecordingDestination.listen(scratch.file("socket"), []);
  const run = restore({
    ...{ image, connect: destination.address, channels: 1 },
    onEvent: (event) => {
      if (event.event !== "channel" || event.channel !== "main") return;
      const fd = openSync(image, "r+");
      writeSync(fd, Buffer.from([0]), 0, 1, offset);
      closeSync(fd);
    },
  });
  await expect(run).rejects.toMatchObject({ code: "IMAGE_DAMAGED", message: expect.stringMatching(words) });
  await destination.close();
}

test("bits of the bitmap that are lost, where nothing is checksummed", async () => {
  const foreign = example.bytes.subarray(0, example.streamEnd);
  await expectFound(foreign, bitmap, /bitmaps .* not what they were when the restore began/);
});

test("the only bit of a range, which then has no pages to check", async () => {
  await expectFound(example.bytes, bitmap + 2, /do not match their checksum|bitmaps .* not what they were/);
});

test("a page", async () => {
  await expectFound(example.bytes, (block?.pagesOffset ?? 0) + 17 * 4096, /do not match their checksum/);
});

test("device state", async () => {
  await expectFound(example.bytes, example.streamEnd - 3, /QEMU's stream .* not what it was/);
});
