import fs from "node:fs";
import { beforeEach, expect, test } from "vitest";
import { readPageMemory } from "../../src/control/instant/page-memory.ts";
import { findMark } from "../../src/control/mapped-ram/resumed.ts";
import { dropCached } from "../../src/io/libc.ts";
import {
  blockWith,
  type InstantTrial,
  range,
  useInstantLab,
  withImage,
  wrongPages,
} from "../support/instant-lab.ts";
import { InstantProcess } from "../support/instant-process.ts";
import { withContents } from "../support/marked-image.ts";
import { PostcopyDestination } from "../support/postcopy-destination.ts";
import { useScratch } from "../support/scratch.ts";
import type { SealedMapped } from "../support/sealed-mapped.ts";

const PAGE = 4096;
/** A checksummed range has 16 pages. Here is one in two, so that each is read by itself. */
const HELD = range(0, 960).filter((page) => Math.floor(page / 16) % 2 === 0 && page % 16 < 12);
const BLOCKS = [blockWith("rom", 5, [4]), blockWith("mem", 960, HELD)];
/** Of the damaged range, which begins at page 320, in the middle of a window. */
const BAD = 20;

const scratch = useScratch();
const lab = useInstantLab();
let sealed: SealedMapped;
beforeEach(async () => {
  sealed = await lab.save(BLOCKS);
});

/** Flips a bit of a page of the range. */
function damage(bytes: Uint8Array): void {
  const at = sealed.offsetOf("mem", BAD * 16 + 3) + 100;
  bytes[at] = (bytes[at] as number) ^ 4;
}

/** The run has failed as it must, and no byte of the range has come, least of all as zeros. */
async function expectRefused({ destination, failure }: InstantTrial): Promise<void> {
  const offset = sealed.offsetOf("mem", BAD * 16);
  expect(await failure()).toMatchObject({
    code: "IMAGE_DAMAGED",
    details: { block: "mem", range: BAD, offset, ran: true },
  });
  await destination.closed;
  expect([destination.ran, destination.ended, destination.problem]).toEqual([true, false, null]);
  const came = range(BAD * 16, BAD * 16 + 16).filter((page) => destination.pages.has(`mem:${page}`));
  expect([came, wrongPages(destination, BLOCKS)]).toEqual([[], []]);
}

test("damage that the background comes upon", async () => {
  damage(sealed.bytes);
  await expectRefused(await lab.start());
});

test.each([323, 320])("damage in the range of a page that is asked for: page %i", async (page) => {
  damage(sealed.bytes);
  const trial = await lab.start({}, { backgroundRate: 0 });
  await trial.destination.until(() => trial.destination.ran);
  trial.destination.request("mem", page);
  await expectRefused(trial);
});

test("damage that was done after the guest was let run", async () => {
  const trial = await lab.start({}, { backgroundRate: 0 });
  await trial.destination.until(() => trial.destination.ran);
  await withImage(trial.image, (fd) => {
    fs.writeSync(fd, Buffer.alloc(8), 0, 8, sealed.offsetOf("mem", BAD * 16));
  });
  trial.destination.request("mem", BAD * 16 + 1);
  await expectRefused(trial);
});

test("an image that is cut while it is served", async () => {
  const { destination, failure, image } = await lab.start({}, { backgroundRate: 0 });
  await destination.until(() => destination.ran);
  const end = sealed.offsetOf("mem", BAD * 16 + 2);
  await withImage(image, (fd) => fs.ftruncateSync(fd, end));
  destination.request("mem", BAD * 16);
  expect(await failure()).toMatchObject({ code: "IMAGE_DAMAGED", details: { offset: end, ran: true } });
  await destination.closed;
  expect([destination.ended, destination.order]).toEqual([false, []]);
});

test("damage that is found before anything happens: nobody is connected to", async () => {
  damage(sealed.bytes);
  const { destination, failure } = await lab.start({}, { verify: "first" });
  expect(await failure()).toMatchObject({ code: "IMAGE_DAMAGED" });
  expect(destination.bytes).toBe(0);
});

test("devices that change between the check and their turn never get the word to run", async () => {
  const trial = await lab.start({
    onArrival: ({ what }) => {
      if (what !== "blocks") return;
      const fd = fs.openSync(trial.image, "r+");
      fs.writeSync(fd, Buffer.of(0x12), 0, 1, sealed.bytes.indexOf(Buffer.alloc(24, 0x11)));
      fs.closeSync(fd);
    },
  });
  expect(await trial.failure()).toMatchObject({ code: "IMAGE_DAMAGED", details: { ran: false } });
  await trial.destination.closed;
  expect(trial.destination.ran).toBe(false);
  // And so it may be restored once it is repaired.
  await withImage(trial.image, (fd) => {
    fs.writeSync(fd, sealed.bytes, 0, sealed.bytes.length - PAGE, 0);
  });
  expect(await withContents(trial.image, findMark)).toBeNull();
});

test("bits of a bitmap that are lost between the check and their use", async () => {
  const { image } = await lab.start({ silentOn: 1 });
  await withContents(image, async (fd, contents) => {
    await withImage(image, (writer) => {
      fs.writeSync(writer, Buffer.of(0xfe), 0, 1, sealed.stream.blocks[1]?.bitmapOffset ?? 0);
    });
    await expect(readPageMemory(fd, contents)).rejects.toMatchObject({ code: "IMAGE_DAMAGED" });
  });
});

test("whichever read fails, the restore does, and no page comes in its stead", async () => {
  const failed: unknown[] = [];
  for (let nth = 1; nth <= 16; nth++) {
    const image = scratch.file(`image-${nth}`);
    fs.writeFileSync(image, sealed.bytes, { flush: true });
    // What the page cache has is never read from the disk.
    await withImage(image, dropCached);
    const destination = await PostcopyDestination.listen(scratch.file(`socket-${nth}`), {
      onArrival: (arrival, source) => {
        if (arrival.what === "command" && arrival.number === 5) source.request("mem", 3);
      },
    });
    const fault = { thread: "worker", call: "read", nth, when: "before", act: "fail" } as const;
    const run = new InstantProcess({ image, connect: destination.address, workers: 1 }, fault);
    const last = await run.last();
    expect(last, `read ${nth}`).toMatchObject({ event: "failed", code: "IO" });
    await destination.close();
    expect([destination.ended, destination.problem, wrongPages(destination, BLOCKS)]).toEqual([
      false,
      null,
      [],
    ]);
    failed.push(last?.details);
    await withImage(image, () => undefined);
  }
  // Before the guest ran, and afterwards.
  expect([failed[0], failed.at(-1)]).toMatchObject([{ ran: false }, { ran: true }]);
});
