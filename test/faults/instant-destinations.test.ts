import { Buffer } from "node:buffer";
import { beforeEach, expect, test } from "vitest";
import { blockWith, range, useInstantLab, wrongPages } from "../support/instant-lab.ts";
import { bitmapWith } from "../support/page-maps.ts";
import type { PostcopyDestination } from "../support/postcopy-destination.ts";
import { seededRandom } from "../support/random.ts";

const BLOCKS = [blockWith("mem", 1500, range(0, 1500)), blockWith("rom", 5, [4])];

const lab = useInstantLab();
beforeEach(async () => {
  await lab.save(BLOCKS);
});

/** Bytes of a message on the return path. */
function message(hex: string): Buffer {
  return Buffer.from(hex.replaceAll(" ", ""), "hex");
}

test("a destination that closes before everything", async () => {
  const { destination, failure } = await lab.start({ onArrival: (_, source) => source.hangUp() });
  expect(await failure()).toMatchObject({ code: "DESTINATION_CLOSED", details: { ran: false } });
  expect(destination.ran).toBe(false);
});

test("one that is gone when its devices come was not told to run the guest", async () => {
  const { failure } = await lab.start({
    onArrival: ({ what }, source) => void (what === "command" && source.hangUp()),
  });
  expect(await failure()).toMatchObject({ code: "DESTINATION_CLOSED", details: { ran: false } });
});

test("one that has got the word to run the guest may run it, whether it answers or not", async () => {
  const abort = new AbortController();
  const { destination, failure } = await lab.start({ silentOn: 2 }, { signal: abort.signal });
  await destination.until(() => destination.ran);
  abort.abort();
  expect(await failure()).toMatchObject({ code: "CANCELLED", details: { ran: true } });
});

test("one that leaves without having said that it has its devices has not run the guest", async () => {
  const { failure } = await lab.start({
    onArrival: ({ what }, source) => void (what === "devices" && source.hangUp()),
  });
  expect(await failure()).toMatchObject({ code: "DESTINATION_CLOSED", details: { ran: false } });
});

test("one that never answers is waited for, until somebody gives it up", async () => {
  const abort = new AbortController();
  const { destination, failure } = await lab.start({ silentOn: 1 }, { signal: abort.signal });
  await destination.until(() => destination.commands.length > 0);
  abort.abort();
  expect(await failure()).toMatchObject({ code: "CANCELLED", details: { ran: false } });
  await destination.closed;
  expect([destination.ran, destination.problem]).toEqual([false, null]);
});

test("a cut at any point is told as such, and whether the guest may run", async () => {
  const whole = await lab.start();
  await whole.completed();
  const random = seededRandom();
  for (let round = 0; round < 30; round++) {
    const cut = random.integer(whole.destination.bytes);
    const { destination, failure } = await lab.start({
      onArrival: (_, source) => void (source.bytes > cut && source.hangUp()),
    });
    const { code, details } = (await failure()) ?? {};
    const hint = `cut at ${cut}, TEST_SEED=${random.seed}`;
    expect(code, hint).toBe("DESTINATION_CLOSED");
    // What it was told it was told, whether or not it has got there.
    if (destination.ran) expect(details?.ran, hint).toBe(true);
    if (!destination.commands.includes(2)) expect(details?.ran, hint).toBe(false);
    expect([destination.ended, destination.problem], hint).toEqual([false, null]);
  }
});

test("a run that was to go on with an earlier one, and fails, leaves a guest that was told to run", async () => {
  const { failure } = await lab.start(
    { received: {}, onArrival: (_, source) => source.hangUp() },
    { resume: true },
  );
  expect(await failure()).toMatchObject({ code: "DESTINATION_CLOSED", details: { ran: true } });
});

test("one that ends with an error fails the restore", async () => {
  const { failure } = await lab.start({ status: 1 });
  expect(await failure()).toMatchObject({ code: "QEMU_FAILED", details: { status: 1, ran: true } });
});

test.each([0, 1])("one that says its last word (%i) in the middle fails the restore", async (status) => {
  const { destination, failure } = await lab.start(
    { onArrival: (_, source) => void (source.order.length === 10 && source.shut(status)) },
    { backgroundRate: 2 ** 20 },
  );
  expect(await failure()).toMatchObject({ code: "QEMU_FAILED", details: { status, ran: true } });
  await destination.closed;
  expect(destination.ended).toBe(false);
});

test("one that asks for nothing and sends nothing more is gone", async () => {
  const { destination, failure } = await lab.start({}, { backgroundRate: 0 });
  await destination.until(() => destination.ran);
  destination.hangUp();
  expect(await failure()).toMatchObject({ code: "DESTINATION_CLOSED", details: { ran: true } });
});

test.each([
  ["a message that QEMU has not", (source) => source.say(message("00ff 0000"))],
  ["a page of no block", (source) => source.request("vram", 0)],
  ["a place that is no page's", (source) => source.requestBytes("mem", 100, 4096)],
  ["less than a page", (source) => source.requestBytes("mem", 0, 100)],
  ["nothing", (source) => source.requestBytes("mem", 0, 0)],
  ["more than a page at once", (source) => source.requestBytes("mem", 0, 1500 * 4096)],
  ["a page behind the end", (source) => source.request("rom", 5)],
  ["a page far behind it", (source) => source.requestBytes("rom", 2 ** 52, 4096)],
] as readonly (readonly [string, (destination: PostcopyDestination) => void])[])(
  "one that says what makes no sense: %s",
  async (_what, say) => {
    for (const backgroundRate of [0, "auto"] as const) {
      const { destination, failure } = await lab.start(
        {
          onArrival: (arrival, source) => {
            if (arrival.what === "command" && arrival.number === 5) say(source);
          },
        },
        { backgroundRate },
      );
      expect(await failure()).toMatchObject({ code: "PROTOCOL", details: { ran: true } });
      await destination.closed;
      expect([destination.ended, wrongPages(destination, BLOCKS)]).toEqual([false, []]);
    }
  },
);

test("noise on the return path never gets past its first bytes", async () => {
  const random = seededRandom();
  for (let round = 0; round < 10; round++) {
    const noise = Buffer.from(Array.from({ length: 200 }, () => 0x80 | random.integer(128)));
    const { destination, failure } = await lab.start({}, { backgroundRate: 0 });
    await destination.until(() => destination.ran);
    destination.say(noise);
    expect(await failure(), `TEST_SEED=${random.seed}`).toMatchObject({ code: "PROTOCOL" });
  }
});

test("one that is to be resumed out of an image that was never resumed is not even connected to", async () => {
  const { destination, failure } = await lab.start({ received: {} }, { resume: true, force: false });
  expect(await failure()).toMatchObject({ code: "VM_MISMATCH" });
  expect(destination.bytes).toBe(0);
});

test("one that is resumed, and whose blocks are others", async () => {
  const received = { mem: bitmapWith(64, []), rom: bitmapWith(5, []) };
  const { destination, failure } = await lab.start({ received }, { resume: true });
  expect(await failure()).toMatchObject({ code: "PROTOCOL", details: { ran: true } });
  expect(destination.order).toEqual([]);
});

test("a slow background is given up at once", async () => {
  const abort = new AbortController();
  const { destination, failure } = await lab.start({}, { backgroundRate: 1, signal: abort.signal });
  await destination.until(() => destination.order.length > 0);
  abort.abort();
  expect(await failure()).toMatchObject({ code: "CANCELLED", details: { ran: true } });
});

test("a slow background keeps nobody waiting who has asked for all", async () => {
  const { destination, completed } = await lab.start({}, { backgroundRate: 1 });
  await destination.until(() => destination.order.length > 0);
  for (const page of range(0, 1500)) destination.request("mem", page);
  destination.request("rom", 4);
  await completed();
  expect([destination.ended, wrongPages(destination, BLOCKS)]).toEqual([true, []]);
});
