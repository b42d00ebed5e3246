import { expect, test } from "vitest";
import { blockWith, expectWhole, range, useInstantLab, wrongPages } from "../support/instant-lab.ts";
import { bitmapWith } from "../support/page-maps.ts";
import { seededRandom } from "../support/random.ts";

const HUGE = 2 ** 21;
/** Pages of a huge page. */
const PAGES = 512;
/** One with holes, one that is all zeros, one that is full, one with its last page. */
const HELD = [...range(3, 300, 7), ...range(2 * PAGES, 3 * PAGES), 4 * PAGES - 1];
const MEM = blockWith("mem", 4 * PAGES, HELD);
const BLOCKS = [MEM, blockWith("rom", 300, range(0, 300, 2))];
const hostPages = { mem: HUGE };
const PONG = Buffer.from("0002000400000007", "hex");

const lab = useInstantLab();

/** Numbers of the huge pages in the order in which they came; throws where one did not come in one piece. */
function hugePagesIn(order: readonly string[]): number[] {
  const came: number[] = [];
  for (let at = 0; at < order.length; at++) {
    const page = Number(/^mem:(\d+)$/.exec(order[at] as string)?.[1] ?? Number.NaN);
    if (Number.isNaN(page)) continue;
    const piece = order.slice(at, at + PAGES);
    expect(page % PAGES).toBe(0);
    expect(piece).toEqual(range(page, page + PAGES).map((one) => `mem:${one}`));
    came.push(page / PAGES);
    at += PAGES - 1;
  }
  return came;
}

test("a huge page comes in one piece, zeros included; one of nothing but zeros need not", async () => {
  await lab.save(BLOCKS);
  const { destination, completed } = await lab.start({ hostPages }, { hostPages });
  const { instant } = await completed();
  expectWhole(destination, BLOCKS);
  expect(hugePagesIn(destination.order)).toEqual([0, 2, 3]);
  expect(instant).toMatchObject({ pagesInBackground: HELD.length + 150, pagesOnDemand: 0 });
  expect(instant?.zeroPages).toBe(3 * PAGES - HELD.length);
});

test("what is asked for comes at once, and once, but never in the middle of a huge page", async () => {
  await lab.save(BLOCKS);
  for (let round = 0; round < 5; round++) {
    const random = seededRandom();
    const { destination, completed } = await lab.start({ hostPages }, { hostPages });
    await destination.until(() => destination.ran);
    for (let fault = 0; fault < 60; fault++) {
      if (random.integer(3) === 0) destination.request("mem", PAGES * random.integer(4));
      else destination.request("rom", random.integer(300));
      if (random.integer(4) === 0)
        await destination.until(() => destination.ended || destination.order.length > fault);
    }
    await completed();
    expectWhole(destination, BLOCKS);
    hugePagesIn(destination.order);
  }
});

test("one of nothing but zeros comes when it is asked for", async () => {
  await lab.save([MEM]);
  const { destination, completed } = await lab.start({ hostPages }, { hostPages, backgroundRate: 0 });
  await destination.until(() => destination.ran);
  for (const huge of [1, 1, 2, 3, 0, 2]) destination.request("mem", huge * PAGES);
  const { instant } = await completed();
  expectWhole(destination, [MEM]);
  expect(hugePagesIn(destination.order)).toEqual([1, 2, 3, 0]);
  expect(instant).toMatchObject({ pagesOnDemand: HELD.length, faults: 4 });
});

test("a restore goes on with the huge pages that have not come", async () => {
  await lab.save([MEM]);
  const received = { mem: bitmapWith(4 * PAGES, range(2 * PAGES, 3 * PAGES)) };
  const { destination, completed } = await lab.start({ received, hostPages }, { hostPages, resume: true });
  await completed();
  expect(destination.problem).toBeNull();
  expect(hugePagesIn(destination.order)).toEqual([0, 3]);
});

test.each([
  ["in the background", "auto"],
  ["the last one that is asked for", 0],
] as const)("damage in a huge page, %s: the end of RAM is never told", async (_how, backgroundRate) => {
  const sealed = await lab.save([MEM]);
  const first = 3 * PAGES - 16;
  sealed.bytes.fill(0, sealed.offsetOf("mem", first), sealed.offsetOf("mem", first + 1));
  const { destination, failure } = await lab.start(
    {
      hostPages,
      // Wakes the source up while its last huge page is under way.
      onArrival: (arrival, source) => {
        if (arrival.what === "page" && arrival.page.address % HUGE === 0) source.say(PONG);
      },
    },
    { hostPages, backgroundRate },
  );
  await destination.until(() => destination.ran);
  for (const huge of [0, 3, 2]) destination.request("mem", huge * PAGES);
  expect(await failure()).toMatchObject({ code: "IMAGE_DAMAGED", details: { block: "mem", ran: true } });
  await destination.closed;
  expect([destination.ended, destination.problem, wrongPages(destination, [MEM])]).toEqual([false, null, []]);
  expect(range(first, first + 16).filter((page) => destination.pages.has(`mem:${page}`))).toEqual([]);
});

test("half a huge page is no request", async () => {
  await lab.save([MEM]);
  const { destination, failure } = await lab.start({ hostPages }, { hostPages });
  await destination.until(() => destination.ran);
  destination.requestBytes("mem", 0, 4096);
  expect(await failure()).toMatchObject({ code: "PROTOCOL" });
});
