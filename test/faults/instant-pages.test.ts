import { setTimeout as sleep } from "node:timers/promises";
import { beforeEach, expect, test } from "vitest";
import { blockWith, contentOf, expectWhole, range, useInstantLab } from "../support/instant-lab.ts";
import { bitmapWith } from "../support/page-maps.ts";
import { seededRandom } from "../support/random.ts";

/** Ranges that are full, holed and empty, windows that are empty, and a block that ends within a range. */
const HELD = [...range(0, 300), ...range(310, 500, 7), 1023, ...range(2048, 2100)];
const BLOCKS = [blockWith("mem", 2101, HELD), blockWith("rom", 5, [0, 3, 4])];
const PAGES = HELD.length + 3;

const lab = useInstantLab();
beforeEach(async () => {
  await lab.save(BLOCKS);
});

test.each([
  ["as fast as it may", "auto"],
  ["at a rate", 64 * 2 ** 20],
] as const)("every page comes once and right, %s", async (_how, backgroundRate) => {
  const { destination, completed } = await lab.start({}, { backgroundRate });
  const { instant, bytes } = await completed();
  expectWhole(destination, BLOCKS);
  expect(destination.pages.size).toBe(PAGES);
  expect(instant).toMatchObject({
    pages: PAGES,
    pagesSent: PAGES,
    pagesOnDemand: 0,
    zeroPages: 0,
    faults: 0,
  });
  expect([instant?.pagesInBackground, bytes]).toEqual([PAGES, PAGES * 4096]);
});

test("before any page: return path, advise, discard, the devices, and then the guest runs", async () => {
  const { destination, completed } = await lab.start();
  await completed();
  // OPEN_RETURN_PATH, POSTCOPY_ADVISE, RAM_DISCARD, PING; in the package LISTEN, PING, RUN.
  expect(destination.commands).toEqual([1, 3, 6, 2, 4, 2, 5]);
  expect(destination.blocks).toEqual([
    { name: "mem", bytes: 2101 * 4096 },
    { name: "rom", bytes: 5 * 4096 },
  ]);
  expect(destination.devices.toString("hex")).toContain("11".repeat(24));
});

test("without a background only what is asked for comes, and the end when all was", async () => {
  const { destination, completed } = await lab.start({}, { backgroundRate: 0 });
  await destination.until(() => destination.ran);
  const wanted = [...HELD.map((page) => `mem:${page}`), "rom:0", "rom:3", "rom:4"];
  for (const [n, place] of wanted.entries()) {
    expect(destination.ended).toBe(false);
    const [block, page] = place.split(":") as [string, string];
    destination.request(block, Number(page));
    await destination.until(() => destination.order.length > n);
  }
  const { instant } = await completed();
  expectWhole(destination, BLOCKS);
  expect(destination.order).toEqual(wanted);
  expect(instant).toMatchObject({ pagesOnDemand: PAGES, pagesInBackground: 0, faults: PAGES });
});

test("a page of zeros comes when it is asked for, and counts apart", async () => {
  const { destination, completed } = await lab.start({}, { backgroundRate: 0 });
  await destination.until(() => destination.ran);
  // In a range with pages, and in one without.
  for (const page of [301, 1500]) destination.request("mem", page);
  await destination.until(() => destination.order.length === 2);
  expect([...destination.pages.values()]).toEqual([null, null]);
  for (const page of HELD) destination.request("mem", page);
  for (const page of [0, 3, 4]) destination.request("rom", page);
  expect((await completed()).instant).toMatchObject({ zeroPages: 2, pagesSent: PAGES, faults: PAGES + 2 });
});

test("a page that is asked for many times comes once", async () => {
  const { destination, completed } = await lab.start({}, { backgroundRate: 0 });
  await destination.until(() => destination.ran);
  for (let again = 0; again < 50; again++) for (const page of [7, 301]) destination.request("mem", page);
  await destination.until(() => destination.order.length === 2);
  // Again when it is there, and then all others, so that nothing can come behind them.
  for (const page of [7, 301, ...HELD]) destination.request("mem", page);
  for (const page of [0, 3, 4, 4]) destination.request("rom", page);
  await completed();
  expectWhole(destination, BLOCKS);
});

test("what the guest waits for overtakes all that the kernel has not taken", async () => {
  const blocks = [blockWith("mem", 4000, range(0, 4000)), blockWith("rom", 5, [4])];
  await lab.save(blocks);
  const { destination, completed } = await lab.start({
    onArrival: ({ what }, source) => void (what === "page" && source.order.length === 0 && source.pause()),
  });
  await destination.until(() => destination.order.length > 0);
  destination.request("rom", 4);
  await destination.untilHeard();
  destination.resume();
  await completed();
  expectWhole(destination, blocks);
  // Behind what the kernel and this process's socket held, and one chunk.
  expect(destination.order.indexOf("rom:4")).toBeLessThan(250);
});

test("faults of all kinds while everything else comes: each page once and right", async () => {
  for (let round = 0; round < 5; round++) {
    const random = seededRandom();
    const { destination, completed } = await lab.start();
    await destination.until(() => destination.ran);
    for (let fault = 0; fault < 400 && !destination.ended; fault++) {
      destination.request("mem", random.integer(2101));
      if (random.integer(8) === 0) await sleep(random.integer(2));
    }
    await completed();
    expectWhole(destination, BLOCKS);
  }
});

test("nothing follows the end, whatever is asked for meanwhile", async () => {
  const { destination, completed } = await lab.start({
    status: null,
    // The guest runs, and may touch pages of zeros at any time.
    onArrival: ({ what }, source) => {
      if (what !== "end") return;
      for (const page of [301, 302, 1500]) source.request("mem", page);
      source.shut(0);
    },
  });
  await completed();
  await destination.closed;
  expectWhole(destination, BLOCKS);
  expect(destination.pages.size).toBe(PAGES);
});

test("a restore goes on where the destination says that it stands", async () => {
  const had = { mem: [...range(0, 100), 301, 2099], rom: [4] };
  const received = { mem: bitmapWith(2101, had.mem), rom: bitmapWith(5, had.rom) };
  const { destination, completed } = await lab.start({ received }, { resume: true });
  const { instant } = await completed();
  expect(destination.problem).toBeNull();
  // Asked for both bitmaps, then resumed.
  expect(destination.commands).toEqual([10, 10, 9]);
  const places = (mem: readonly number[], rom: readonly number[]): string[] =>
    [...mem.map((page) => `mem:${page}`), ...rom.map((page) => `rom:${page}`)].sort();
  const left = (held: readonly number[], gone: readonly number[]): number[] =>
    held.filter((page) => !gone.includes(page));
  expect([...destination.order].sort()).toEqual(places(left(HELD, had.mem), [0, 3]));
  for (const [place, bytes] of destination.pages) {
    const [block, page] = place.split(":") as [string, string];
    expect(bytes?.equals(contentOf(block, Number(page)))).toBe(true);
  }
  expect(instant).toMatchObject({ runningMs: null, pages: PAGES, pagesSent: PAGES });
});

test("a page that a resumed destination asks for before it has said what it has comes once", async () => {
  const received = { mem: bitmapWith(2101, range(0, 100)), rom: bitmapWith(5, [4]) };
  const { destination, completed } = await lab.start(
    {
      received,
      onArrival: (arrival, source) => {
        if (arrival.what === "command" && arrival.number === 10) source.request("mem", 200);
      },
    },
    { resume: true },
  );
  await completed();
  expect(destination.problem).toBeNull();
});
