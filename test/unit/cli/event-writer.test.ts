import { spawn } from "node:child_process";
import { once } from "node:events";
import { Writable } from "node:stream";
import { text } from "node:stream/consumers";
import { expect, test } from "vitest";
import { EventWriter } from "../../../src/cli/events.ts";
import { SAMPLES } from "./samples.ts";

const WRITER = new URL("../../../src/cli/events.js", import.meta.url).href;

/** A reader that takes nothing until it is told to. */
class SlowReader extends Writable {
  received = "";
  #release: (() => void) | undefined;
  #slow = true;

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.received += chunk.toString();
    if (this.#slow) this.#release = done;
    else done();
  }

  catchUp(): void {
    this.#slow = false;
    this.#release?.();
  }
}

const eventsOf = (lines: string) =>
  lines
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line));

test("a line is an event with its name first and the time second", () => {
  const reader = new SlowReader();
  new EventWriter(reader).hello();
  expect(reader.received).toMatch(
    /^\{"event":"hello","time":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z","contract":1,"version":"[^"]+"\}\n$/,
  );
});

test("while the reader is behind progress is dropped and nothing else", async () => {
  const reader = new SlowReader();
  const writer = new EventWriter(reader);
  writer.write(SAMPLES.progress);
  for (let i = 0; i < 10_000; i++) writer.write(SAMPLES.progress);
  for (let id = 0; id < 255; id++) writer.write({ event: "channel", channel: id });
  for (let i = 0; i < 10_000; i++) writer.write(SAMPLES.progress);
  writer.write(SAMPLES.completed);
  expect(reader.writableLength).toBeLessThan(64 * 1024);

  reader.catchUp();
  reader.end();
  await once(reader, "finish");
  const names = eventsOf(reader.received).map(({ event }) => event);
  expect(names).toEqual(["progress", ...new Array(255).fill("channel"), "completed"]);
});

test("progress flows again once the reader has caught up", async () => {
  const reader = new SlowReader();
  const writer = new EventWriter(reader);
  writer.write(SAMPLES.hello);
  writer.write(SAMPLES.progress);
  reader.catchUp();
  writer.write(SAMPLES.progress);
  reader.end();
  await once(reader, "finish");
  expect(eventsOf(reader.received)).toHaveLength(2);
});

test("a reader that goes away neither stops the process nor changes its exit status", async () => {
  const child = spawn(
    process.execPath,
    [
      "--input-type=module",
      "-e",
      `import { EventWriter } from ${JSON.stringify(WRITER)};
       const writer = new EventWriter(process.stdout);
       let events = 0;
       const timer = setInterval(() => {
         writer.write({ event: "channel", channel: 1 });
         if (++events === 50) { clearInterval(timer); process.stderr.write("finished"); process.exitCode = 42; }
       }, 5);`,
    ],
    { stdio: ["ignore", "pipe", "pipe"] },
  );
  child.stdout.once("data", () => child.stdout.destroy());
  const [[status], words] = await Promise.all([once(child, "close"), text(child.stderr)]);
  expect(words).toBe("finished");
  expect(status).toBe(42);
});
