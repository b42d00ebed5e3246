import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import { writeFile } from "node:fs/promises";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Ajv2020 } from "ajv/dist/2020.js";
import { afterEach, describe, expect, test } from "vitest";
import { MAIN } from "../../src/entry-points.ts";
import { inspect, verify } from "../../src/index.ts";
import { readChannels } from "../support/built-image.ts";
import { FakePeer, tinyMigration } from "../support/fake-peer.ts";
import type { SeenEvent } from "../support/helper-process.ts";
import { RecordingDestination } from "../support/recording-destination.ts";
import { findRepoRoot } from "../support/repo.ts";
import { useSaves } from "../support/save-under-test.ts";

/** coreutils has it; Node has no such call. */
const MAKE_FIFO = "mkfifo";
const SCHEMA = JSON.parse(fs.readFileSync(path.join(findRepoRoot(), "docs/events.schema.json"), "utf8"));

const { scratch, start, listening, argsOf } = useSaves();
const image = (): string => scratch.file("vm.mfd");

describe("stdout under --json", () => {
  const matches = new Ajv2020({ strict: false }).compile(SCHEMA);
  /** Everything that may make a program talk: its own log at its loudest, and Node's warnings. */
  const loud = { shell: 'export NODE_OPTIONS=--trace-warnings NODE_DEBUG=net; exec "$0" "$@"' };
  const told = ["--log-level", "trace", "--json"];

  function expectPure(events: readonly SeenEvent[], ...names: readonly string[]): void {
    for (const event of events) expect(matches(event), JSON.stringify(event)).toBe(true);
    const seen = events.map(({ event }) => event).filter((event) => event !== "progress");
    expect([...new Set(seen)]).toEqual(names);
  }

  test("has events of the schema and nothing else, whatever is told elsewhere", async () => {
    const save = start(argsOf(image(), ["--hold", "--allow-uid", "1", ...told]), loud);
    await save.waitEvent("listening");
    await new FakePeer(`unix:${scratch.file("s")}`).play(tinyMigration());
    save.say("what is this");
    save.say("commit");
    await save.success();
    expectPure(save.events, "hello", "listening", "channel", "drained", "completed");
    expect(save.stderr).toContain("neither commit nor abort");

    const verified = start(["verify", image(), ...told], loud);
    await verified.success();
    expectPure(verified.events, "hello", "completed");

    const { channels } = await readChannels(image());
    const destination = await RecordingDestination.listen(scratch.file("in"), channels);
    const restore = start(
      ["restore", image(), "--connect", destination.address, "--verify", "first", ...told],
      loud,
    );
    await restore.success();
    await destination.close();
    expectPure(restore.events, "hello", "verified", "channel", "completed");

    const failed = start(["verify", scratch.file("nothing"), ...told], loud);
    await failed.failure();
    expectPure(failed.events, "hello", "failed");
  });

  test("the ready line comes when a connection succeeds, not sooner", async () => {
    for (let round = 0; round < 8; round++) {
      const { helper, peer } = await listening(image());
      await peer.play(tinyMigration());
      await helper.success();
    }
  });
});

test("SIGUSR1, by which Node opens a debugger to the whole machine, does nothing", async () => {
  const { helper, peer } = await listening(image());
  helper.signal("SIGUSR1");
  await peer.play(tinyMigration());
  await helper.success();
  expect(helper.stderr).toBe("");
});

describe("a reader of stdout that does not read", () => {
  const open: number[] = [];
  const children: ChildProcess[] = [];
  afterEach(() => {
    for (const child of children.splice(0)) child.kill("SIGKILL");
    for (const fd of open.splice(0)) fs.closeSync(fd);
  });

  /**
   * A pipe in which there is no room for a single byte, opened twice: whether it blocks is a property of the opening,
   * and a child changes it.
   */
  function fullPipe(): { ours: number; theirs: number } {
    execFileSync(MAKE_FIFO, [scratch.file("pipe")]);
    const ours = fs.openSync(scratch.file("pipe"), fs.constants.O_RDWR | fs.constants.O_NONBLOCK);
    const theirs = fs.openSync(scratch.file("pipe"), fs.constants.O_RDWR);
    open.push(ours, theirs);
    fill(ours);
    return { ours, theirs };
  }

  async function saveInto(stdout: number): Promise<{ exit: Promise<unknown[]> }> {
    const child = spawn(process.execPath, [MAIN, ...argsOf(image())], {
      stdio: ["ignore", stdout, "inherit"],
    });
    children.push(child);
    const exit = once(child, "exit");
    await appears(scratch.file("s"));
    await new FakePeer(`unix:${scratch.file("s")}`).play(tinyMigration());
    return { exit };
  }

  test("costs the events, five seconds, and nothing else", async () => {
    const { exit } = await saveInto(fullPipe().theirs);
    const at = performance.now();
    expect(await exit).toEqual([0, null]);
    expect(performance.now() - at).toBeLessThan(9000);
    expect(await inspect({ image: image() })).toMatchObject({ sealed: true });
  });

  test("and begins to when the run is over gets the last lines", async () => {
    const { ours, theirs } = fullPipe();
    const { exit } = await saveInto(theirs);
    await appears(image());
    let text = "";
    const reading = setInterval(() => {
      text += drain(ours);
    }, 20);
    expect(await exit).toEqual([0, null]);
    clearInterval(reading);
    text += drain(ours);
    const lines = text.trim().split("\n");
    expect(lines.map((line) => JSON.parse(line).event).filter((name) => name !== "progress")).toEqual([
      ...["hello", "listening", "channel", "channel", "channel", "completed"],
    ]);
  });
});

test.each([
  ["stdin", "<&-"],
  ["stdout", ">&-"],
  ["all three", "<&- >&- 2>&-"],
])("a helper that is started without %s saves all the same", async (_what, closed) => {
  const helper = start(argsOf(image()), { shell: `exec "$0" "$@" ${closed}` });
  await appears(scratch.file("s"));
  await new FakePeer(`unix:${scratch.file("s")}`).play(tinyMigration());
  expect(await helper.exit()).toBe(0);
  await verify({ image: image(), workers: 1 });
});

test("metadata that cannot be read leaves no secret in what is told", async () => {
  await writeFile(scratch.file("secret"), "nobody's business");
  const args = argsOf(image(), ["--meta", "key=nobody's business", "--meta-file", "key=/no/such"]);
  const helper = start([...args, "--log-level", "trace"]);
  expect(await helper.failure()).toMatchObject({ code: "IO" });
  expect(helper.stderr + JSON.stringify(helper.events)).not.toContain("nobody's business");
});

async function appears(file: string): Promise<void> {
  const deadline = Date.now() + 20_000;
  while (!fs.existsSync(file)) {
    if (Date.now() > deadline) throw new Error(`${file} has not appeared`);
    await sleep(10);
  }
}

function fill(fd: number): void {
  for (const chunk of [Buffer.alloc(4096, " "), Buffer.from(" ")]) {
    try {
      for (;;) fs.writeSync(fd, chunk);
    } catch (error) {
      expect((error as NodeJS.ErrnoException).code).toBe("EAGAIN");
    }
  }
}

function drain(fd: number): string {
  const buffer = Buffer.alloc(65536);
  let text = "";
  try {
    for (;;) text += buffer.toString("utf8", 0, fs.readSync(fd, buffer, 0, buffer.length, null));
  } catch (error) {
    expect((error as NodeJS.ErrnoException).code).toBe("EAGAIN");
  }
  return text;
}
