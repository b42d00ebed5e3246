import { writeFile } from "node:fs/promises";
import { beforeEach, describe, expect, test } from "vitest";
import { verify } from "../../src/index.ts";
import { largeMigration, tinyMigration } from "../support/fake-peer.ts";
import { goodImage, type ListeningSave, useSaves } from "../support/save-under-test.ts";

const { scratch, listening } = useSaves();
const SIGNALS = [
  ["SIGINT", 130],
  ["SIGTERM", 143],
  ["SIGHUP", 129],
] as const;

let before: Buffer;
beforeEach(async () => {
  before = await goodImage();
  await writeFile(scratch.file("vm.mfd"), before);
});

const save = (...args: readonly string[]): Promise<ListeningSave> => listening(scratch.file("vm.mfd"), args);

async function drained(): Promise<ListeningSave> {
  const run = await save("--hold");
  await run.peer.play(tinyMigration());
  expect(await run.helper.waitEvent("drained")).toMatchObject({
    evidence: { verdict: "complete", reasons: [] },
  });
  return run;
}

/** The earlier image stands as it was, and nothing else. */
async function expectUntouched(): Promise<void> {
  expect(await scratch.names()).toEqual(["vm.mfd"]);
  expect(before.equals(await scratch.read("vm.mfd"))).toBe(true);
}

async function expectNewImage(): Promise<void> {
  expect(await scratch.names()).toEqual(["vm.mfd"]);
  expect(before.equals(await scratch.read("vm.mfd"))).toBe(false);
  await verify({ image: scratch.file("vm.mfd"), workers: 1 });
}

describe("--hold", () => {
  test("commit publishes", async () => {
    const { helper } = await drained();
    helper.say("commit");
    await helper.success();
    await expectNewImage();
  });

  test("commit that comes before drained publishes", async () => {
    const { helper, peer } = await save("--hold");
    helper.say("commit");
    helper.closeStdin();
    await peer.play(tinyMigration());
    await helper.success();
    await expectNewImage();
  });

  test("abort discards", async () => {
    const { helper } = await drained();
    helper.say("abort");
    expect(await helper.failure()).toMatchObject({ status: 3, code: "ABORTED" });
    await expectUntouched();
  });

  test("the end of input discards", async () => {
    const { helper } = await drained();
    helper.closeStdin();
    expect(await helper.failure()).toMatchObject({ status: 3, code: "ABORTED" });
    await expectUntouched();
  });

  test("abort ends a save whose data still flows", async () => {
    const { helper, peer } = await save("--hold", "--rate", "1M");
    await peer.play(largeMigration(2, 16 * 2 ** 20));
    await helper.waitEvent("progress");
    helper.say("abort");
    expect(await helper.failure()).toMatchObject({ status: 3, code: "ABORTED" });
    await expectUntouched();
  });

  test("the end of input ends a save to which nobody has connected", async () => {
    const { helper } = await save("--hold");
    helper.closeStdin();
    expect(await helper.failure()).toMatchObject({ status: 3, code: "ABORTED" });
    await expectUntouched();
  });

  test("anything else on stdin decides nothing", async () => {
    const { helper } = await drained();
    helper.say("commit please");
    helper.say("abort");
    expect(await helper.failure()).toMatchObject({ code: "ABORTED" });
    expect(helper.stderr).toContain("neither commit nor abort");
    await expectUntouched();
  });

  test("a stream that fails is told without asking", async () => {
    const { helper, peer } = await save("--hold");
    await peer.play(tinyMigration().slice(1));
    expect(await helper.failure()).toMatchObject({ code: "STREAM_INCOMPLETE" });
    expect(helper.events.some(({ event }) => event === "drained")).toBe(false);
    await expectUntouched();
  });

  test.each(SIGNALS)("%s while waiting for the answer exits with %i", async (signal, status) => {
    const { helper } = await drained();
    helper.signal(signal);
    expect(await helper.failure()).toMatchObject({ status, code: "CANCELLED", details: { signal } });
    await expectUntouched();
  });
});

describe("without --hold", () => {
  test("stdin is not looked at", async () => {
    const { helper, peer } = await save();
    helper.say("abort");
    helper.closeStdin();
    await peer.play(tinyMigration());
    await helper.success();
    await expectNewImage();
  });
});

describe.each(SIGNALS)("%s", (signal, status) => {
  test("while listening", async () => {
    const { helper } = await save();
    helper.signal(signal);
    expect(await helper.failure()).toMatchObject({ status, code: "CANCELLED", details: { signal } });
    await expectUntouched();
  });

  test("while data flows, at once even when a slow --rate holds it back", async () => {
    const { helper, peer } = await save("--rate", "64K");
    await peer.play(largeMigration(2, 16 * 2 ** 20));
    await helper.waitEvent("progress", ({ bytes }) => Number(bytes) > 2 ** 20);
    const at = Date.now();
    helper.signal(signal);
    helper.signal(signal);
    expect(await helper.failure()).toMatchObject({ status, code: "CANCELLED" });
    // Waiting for its turn would take 16 s, and giving up on the worker 5 s.
    expect(Date.now() - at).toBeLessThan(4000);
    await expectUntouched();
  });
});
