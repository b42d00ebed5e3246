import { readFile, writeFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import type { SaveOptions } from "../../src/control/options.ts";
import { type CompletedEvent, inspect, type RunEvent, restore, save, verify } from "../../src/index.ts";
import { FakePeer, tinyMigration } from "../support/fake-peer.ts";
import { goodImage } from "../support/save-under-test.ts";
import { useScratch } from "../support/scratch.ts";

const scratch = useScratch();

/** A save of a tiny migration through the library, over an earlier image. */
async function saveTiny(options: Partial<SaveOptions>): Promise<CompletedEvent> {
  await writeFile(scratch.file("vm.mfd"), await goodImage());
  const { onEvent } = options;
  return save({
    image: scratch.file("vm.mfd"),
    listen: `unix:${scratch.file("s")}`,
    workers: 1,
    ...options,
    onEvent: (event) => {
      if (event.event === "listening") void new FakePeer(event.address).play(tinyMigration());
      onEvent?.(event);
    },
  });
}

describe("confirm", () => {
  test.each([["abort"], [false], [true], [undefined], ["yes"], ["COMMIT"]])(
    "%s is no commit: nothing is published",
    async (answer) => {
      const confirm = async (): Promise<"commit"> => answer as "commit";
      await expect(saveTiny({ confirm })).rejects.toMatchObject({ code: "ABORTED", exitStatus: 3 });
      expect((await goodImage()).equals(await readFile(scratch.file("vm.mfd")))).toBe(true);
    },
  );

  test("commit is", async () => {
    const { image } = await saveTiny({ confirm: async () => "commit" });
    expect(await inspect({ image: image.path })).toMatchObject({
      imageUuid: image.uuid,
      metadata: { evidence: { decidedBy: "commit" } },
    });
  });

  test("what it throws ends the save, and nothing is published", async () => {
    const confirm = async (): Promise<"commit"> => {
      throw new Error("the manager has lost its database");
    };
    await expect(saveTiny({ confirm })).rejects.toThrow("database");
    expect((await goodImage()).equals(await readFile(scratch.file("vm.mfd")))).toBe(true);
  });
});

test.each(["listening", "channel", "drained", "completed"])(
  "a listener that throws at %s is logged and harms nothing",
  async (name) => {
    const errors: string[] = [];
    const nothing = (): void => undefined;
    const completed = await saveTiny({
      confirm: async () => "commit",
      log: { debug: nothing, info: nothing, warn: nothing, error: (_, text) => errors.push(text) },
      onEvent: (event: RunEvent) => {
        if (event.event === name) throw new Error("a defect of the listener");
      },
    });
    expect(await verify({ image: completed.image.path })).toMatchObject({ bytes: completed.bytes });
    expect(errors.length).toBeGreaterThan(0);
  },
);

describe("options that make no sense are USAGE, before anything starts", () => {
  const good = { image: "vm.mfd", listen: "unix:s" };
  test.each<[string, unknown]>([
    ["none at all", undefined],
    ["no image", { listen: "unix:s" }],
    ["an image that is no text", { ...good, image: 5 }],
    ["a descriptor without a number", { ...good, image: "fd:x" }],
    ["no address", { image: "vm.mfd" }],
    ["an address of no kind", { ...good, listen: "udp:1" }],
    ["a metadata value that is no text", { ...good, meta: { a: 5 } }],
    ["an unknown checksum", { ...good, checksum: "md5" }],
    ["an unknown direct-io", { ...good, directIo: "foo" }],
    ["too many channels", { ...good, channels: 256 }],
    ["half a worker", { ...good, workers: 0.5 }],
    ["an offset beyond all files", { ...good, offset: Number.MAX_SAFE_INTEGER }],
    ["the socket as the image", { image: "./s", listen: "unix:s" }],
  ])("save: %s", async (_, options) => {
    await expect(save(options as SaveOptions)).rejects.toMatchObject({ code: "USAGE" });
  });

  test("restore, verify and inspect too", async () => {
    const wrong = "vm.mfd" as never;
    await expect(restore(wrong)).rejects.toMatchObject({ code: "USAGE" });
    await expect(verify(wrong)).rejects.toMatchObject({ code: "USAGE" });
    await expect(inspect(wrong)).rejects.toMatchObject({ code: "USAGE" });
  });
});
