import { describe, expect, test } from "vitest";
import { verify } from "../../src/index.ts";
import { type FakePeer, tinyMigration } from "../support/fake-peer.ts";
import { useHostileSaves } from "../support/hostile-saves.ts";
import { useSaves } from "../support/save-under-test.ts";
import * as wire from "../support/stream-builder.ts";

/*
 * Channels of `save --format mapped-ram` wait for main, and are read no further meanwhile, not even to the end of file. That
 * QEMU has gone must show all the same, long before --connect-timeout.
 */

const atBarrier = (id: number): Buffer => Buffer.concat([wire.initPacket(id), wire.syncPacket()]);
const beforeBlocks = Buffer.concat([wire.initPacket(0), wire.packet({ block: "mem", normal: [0] })]);

describe("QEMU goes before main has said a word", () => {
  const { save, expectFailure } = useHostileSaves();

  async function expectNoticed(channels: number, say: (peer: FakePeer) => Promise<void>): Promise<void> {
    const run = await save("--format", "mapped-ram");
    await say(run.peer);
    for (let n = 0; n < channels; n++) await run.helper.waitEvent("channel", ({ channel }) => channel === n);
    run.peer.vanish();
    const words = /hung up, and none was the main channel/;
    await expectFailure(run, { code: "STREAM_INCOMPLETE", words, channels });
  }

  test("and main was not even connected", () =>
    expectNoticed(2, (peer) => peer.playWithoutEnd([atBarrier(0), atBarrier(1)])));

  test("and main was connected", () =>
    expectNoticed(1, (peer) => peer.playWithoutEnd([Buffer.alloc(0), atBarrier(0)])));

  test("and pages came before the block list", () =>
    expectNoticed(1, (peer) => peer.playWithoutEnd([beforeBlocks])));
});

describe("channels have ended", () => {
  const { scratch, listening } = useSaves();

  test("and main is there, but silent: it is waited for", async () => {
    const image = scratch.file("vm.mr");
    const { helper, peer } = await listening(image, ["--format", "mapped-ram"]);
    const [main, ...channels] = tinyMigration(2, { style: "10" }) as [Buffer, Buffer, Buffer];
    const silent = await peer.connect();
    await peer.play(channels);
    // The connections are looked at several times before each of these.
    const both = await helper.waitEvent(
      "progress",
      ({ channels: named }) => (named as unknown[]).length === 2,
    );
    await helper.waitEvent("progress", ({ elapsedMs }) => Number(elapsedMs) > Number(both.elapsedMs) + 500);
    silent.end(main);
    await helper.success();
    expect(await verify({ image })).toMatchObject({ checked: "checksums and structure" });
  });
});
