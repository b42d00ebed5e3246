import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { beforeEach, describe, expect, test } from "vitest";
import { diff, save, verify } from "../../src/index.ts";
import { FakePeer, largeMigration } from "../support/fake-peer.ts";
import { type FaultSpec, withFault } from "../support/fault-spec.ts";
import { useHelpers } from "../support/helper-process.ts";
import { useScratch } from "../support/scratch.ts";

const MIB = 2 ** 20;
const CHANNELS = 2;
const scratch = useScratch();
const start = useHelpers();
const at = (name: string): string => scratch.file(name);
const OLD = Buffer.from("an earlier image that somebody needs");

beforeEach(async () => {
  let sent: Promise<unknown> = Promise.resolve();
  await save({
    ...{ image: at("in"), listen: `unix:${at("s")}`, channels: CHANNELS },
    onEvent: (event) => {
      if (event.event !== "listening") return;
      sent = new FakePeer(event.address).play(largeMigration(CHANNELS, 8 * MIB));
    },
  });
  await sent;
  await writeFile(at("out"), OLD);
  await mkdir(at("tmp"));
  const before = process.env.TMPDIR;
  process.env.TMPDIR = at("tmp");
  return () => {
    if (before === undefined) delete process.env.TMPDIR;
    else process.env.TMPDIR = before;
  };
});

const points: readonly [string, FaultSpec][] = [
  ["at the first write of a page", { thread: "worker", call: "write", nth: 1, when: "before", act: "kill" }],
  ["half-way through a write", { thread: "worker", call: "write", nth: 5, when: "before", act: "tear" }],
  [
    "at the first flush of the seal",
    { thread: "main", call: "fdatasync", nth: 2, when: "before", act: "kill" },
  ],
  ["before the last flush", { thread: "main", call: "fdatasync", nth: 4, when: "before", act: "kill" }],
  ["before the rename", { thread: "main", call: "renameSync", nth: 1, when: "before", act: "kill" }],
  ["after the rename", { thread: "main", call: "renameSync", nth: 1, when: "after", act: "kill" }],
];

for (const [format, ...more] of [["mapped-ram"], ["stream", "--channels", "5"]] as const) {
  describe(`convert --format ${format} is killed`, () => {
    // By a copy the same code runs twice: what is hit in it once more is the copy.
    for (const [name, fault] of format === "stream" ? points.slice(1, 3) : points) {
      test(`${name}: the earlier image or the whole new one, and the next one works`, async () => {
        const args = ["convert", at("in"), at("out"), "--format", format, ...more, "--json"];
        expect(await start(args, withFault(fault)).exit()).toBe("SIGKILL");
        expect(await readdir(at("tmp"))).toEqual([]);
        if (!(await readFile(at("out"))).equals(OLD)) await verify({ image: at("out") });
        await verify({ image: at("in") });

        await start(args).success();
        expect(await diff({ image: at("in"), other: at("out") })).toMatchObject({
          differing: 0,
          unmatched: [],
        });
        // The copy on the way has no name, and what was half written is found again by its own.
        expect((await readdir(scratch.directory)).sort()).toEqual(["in", "out", "tmp"]);
      });
    }
  });
}
