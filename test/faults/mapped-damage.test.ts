import { Buffer } from "node:buffer";
import { type FileHandle, open } from "node:fs/promises";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { type MultifdError, type UsedRange, verify } from "../../src/index.ts";
import { punchHole } from "../../src/io/libc.ts";
import { finishFileRestore, prepareFileRestore } from "../../src/vm/engine-file/restore.ts";
import { failureOf } from "../support/expect-failure.ts";
import { type FileGuest, FileLab } from "../support/file-lab.ts";
import { inspectMapped } from "../support/inspecting.ts";
import { describeBothQemus } from "../support/qemus.ts";
import { type Random, seededRandom } from "../support/random.ts";

const MIB = 2 ** 20;
const PAGE = 4096;
const REFUSALS = ["IMAGE_DAMAGED", "NOT_AN_IMAGE", "NOT_SEALED", "UNSUPPORTED_VERSION"];
/** Where the damage goes and how often: 84 places. */
const PLACES = [
  ["stream", 20],
  ["pages", 30],
  ["map", 6],
  ["metadata", 8],
  ["checksums", 8],
  ["mark", 4],
  ["footer", 8],
] as const;

describeBothQemus("damage to a mapped-ram image of a real guest", ({ ten }) => {
  let lab: FileLab;
  let image: string;
  let file: FileHandle;
  let bytes: Buffer;
  let ranges: readonly UsedRange[];
  /** File offsets of the pages that are there. */
  let pages: number[];
  let destination: FileGuest;
  let random: Random;

  beforeAll(async () => {
    lab = await FileLab.open();
    image = lab.file("vm.mr");
    const setup = { binary: ten, ramBytes: 32 * MIB };
    const source = await lab.source(setup);
    await lab.save(source, { image, channels: 4 });
    await source.vm.quit();
    destination = await lab.destination(setup);
    ({ ranges } = await inspectMapped(image));
    file = await open(image, "r+");
    bytes = Buffer.alloc((await file.stat()).size);
    await file.read(bytes, 0, bytes.length, 0);
    pages = ranges.filter(({ what }) => what.startsWith("pages of ")).flatMap((range) => presentPages(range));
  });
  afterAll(async () => {
    await file.close();
    await lab.close();
  });
  beforeEach(() => {
    random = seededRandom();
  });

  function presentPages({ offset, length }: UsedRange): number[] {
    const all = Array.from({ length: length / PAGE }, (_, page) => offset + page * PAGE);
    return all.filter((page) => bytes.subarray(page, page + PAGE).some((byte) => byte !== 0));
  }

  async function prepare(first: boolean): Promise<MultifdError | null> {
    const verifying = first ? ({ verify: "first" } as const) : {};
    return failureOf(
      prepareFileRestore(destination.monitor, { image, channels: 2, ...verifying }).then(finishFileRestore),
    );
  }

  /** verify finds it, and so does a restore before QEMU gets the file; what is no page, also without --verify first. */
  async function expectFound(what: string, page: boolean): Promise<void> {
    const found = { verify: await failureOf(verify({ image })), first: await prepare(true) };
    for (const [command, failure] of Object.entries(found)) {
      expect(failure?.code, `${command}: ${what}, TEST_SEED=${random.seed}`).toBeOneOf(REFUSALS);
    }
    if (!page) expect((await prepare(false))?.code, what).toBeOneOf(REFUSALS);
    expect(await destination.vm.qmp.execute("query-fdsets")).toEqual([]);
  }

  /** A place that restore uses: any byte of a range, or of a page that is there. */
  function place(area: string): number {
    if (area === "pages") return random.pick(pages) + random.integer(PAGE);
    const range = random.pick(ranges.filter(({ what }) => what === area));
    return range.offset + random.integer(range.length);
  }

  test("the untouched image is taken", async () => {
    expect(await failureOf(verify({ image }))).toBeNull();
    expect(await prepare(true)).toBeNull();
    expect(await prepare(false)).toBeNull();
  });

  for (const [area, count] of PLACES) {
    test(`a changed byte is found at ${count} places of ${area}`, async () => {
      for (let n = 0; n < count; n++) {
        const offset = place(area);
        await file.write(Buffer.from([(bytes[offset] as number) ^ (1 + random.integer(255))]), 0, 1, offset);
        await expectFound(`byte ${offset} of ${area}`, area === "pages");
        await file.write(bytes, offset, 1, offset);
      }
    }, 120_000);
  }

  test("a cut is found at 10 lengths, and so is anything that follows", async () => {
    for (let cut = 0; cut < 10; cut++) {
      const length = cut === 0 ? 0 : cut === 1 ? bytes.length - 1 : random.integer(bytes.length);
      await file.truncate(length);
      await expectFound(`cut to ${length} bytes`, false);
      await file.write(bytes, length, bytes.length - length, length);
    }
    await file.write(Buffer.alloc(PAGE, 0xaa), 0, PAGE, bytes.length);
    await expectFound("4096 bytes that follow", false);
    await file.truncate(bytes.length);
  });

  test("a page that fell into a hole is found", async () => {
    for (let n = 0; n < 5; n++) {
      const page = random.pick(pages);
      punchHole(file.fd, page, PAGE);
      await expectFound(`a hole at ${page}`, true);
      await file.write(bytes, page, PAGE, page);
    }
  });

  test("without checksums a page that fell into a hole is found all the same", async () => {
    const unchecked = lab.file("unchecked.mr");
    const source = await lab.source({ binary: ten, ramBytes: 32 * MIB });
    await lab.save(source, { image: unchecked, channels: 2, checksum: "none" });
    const { blocks } = await inspectMapped(unchecked);
    const handle = await open(unchecked, "r+");
    const page = Buffer.alloc(PAGE);
    let at = blocks[0]?.pagesOffset ?? 0;
    for (; ; at += PAGE) {
      await handle.read(page, 0, PAGE, at);
      if (page.some((byte) => byte !== 0)) break;
    }
    punchHole(handle.fd, at, PAGE);
    await handle.close();
    const failure = await failureOf(verify({ image: unchecked }));
    expect(failure).toMatchObject({ code: "IMAGE_DAMAGED", details: { offset: at } });
  });
});
