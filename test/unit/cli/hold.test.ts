import { PassThrough } from "node:stream";
import { setImmediate as turn } from "node:timers/promises";
import { expect, test } from "vitest";
import { Hold } from "../../../src/cli/hold.ts";
import { type DrainedEvent, MultifdError } from "../../../src/index.ts";

const DRAINED: DrainedEvent = {
  event: "drained",
  bytes: 1,
  elapsedMs: 1,
  evidence: { verdict: "complete", reasons: [] },
  channels: [],
};

/** A hold whose manager is the test. */
function holding() {
  const stdin = new PassThrough();
  const controller = new AbortController();
  const warnings: string[] = [];
  const ignore = () => undefined;
  const log = {
    debug: ignore,
    info: ignore,
    error: ignore,
    warn: (_fields: object, message: string) => warnings.push(message),
  };
  const hold = new Hold(stdin, (reason) => controller.abort(reason), log);
  return {
    stdin,
    hold,
    warnings,
    signal: controller.signal,
    ask: () => hold.confirm(DRAINED, controller.signal),
  };
}

const aborted = expect.objectContaining({ code: "ABORTED" });

test("commit after the drain commits", async () => {
  const { stdin, ask } = holding();
  const answer = ask();
  stdin.write("commit\n");
  await expect(answer).resolves.toBe("commit");
});

test("abort after the drain is handed over, not cancelled", async () => {
  const { stdin, ask, signal } = holding();
  const answer = ask();
  stdin.write("abort\n");
  await expect(answer).resolves.toBe("abort");
  expect(signal.aborted).toBe(false);
});

test("a commit before the drain is remembered, whatever end of input follows", async () => {
  const { stdin, ask, signal } = holding();
  stdin.end("commit\n");
  await turn();
  expect(signal.aborted).toBe(false);
  await expect(ask()).resolves.toBe("commit");
});

test("an abort before the drain cancels at once", async () => {
  const { stdin, signal, ask } = holding();
  stdin.write("abort\n");
  await turn();
  expect(signal.reason).toEqual(aborted);
  await expect(ask()).rejects.toEqual(aborted);
});

test("an abort before the drain takes a commit back, and nothing takes the abort back", async () => {
  const { stdin, signal, ask } = holding();
  stdin.write("commit\nabort\ncommit\n");
  await turn();
  expect(signal.reason).toEqual(aborted);
  await expect(ask()).rejects.toEqual(aborted);
});

test("end of input without an answer aborts, before and after the drain", async () => {
  const before = holding();
  before.stdin.end();
  await turn();
  expect(before.signal.reason).toEqual(aborted);

  const after = holding();
  const answer = after.ask();
  after.stdin.end();
  await expect(answer).resolves.toBe("abort");
});

test("an unfinished last line is no answer", async () => {
  const { stdin, ask } = holding();
  const answer = ask();
  stdin.end("commit");
  await expect(answer).resolves.toBe("abort");
});

test("a failing stdin aborts like its end", async () => {
  const { stdin, signal } = holding();
  stdin.destroy(new Error("EIO"));
  await turn();
  expect(signal.reason).toEqual(aborted);
});

test("a line may come in pieces and end as on Windows", async () => {
  const { stdin, ask } = holding();
  const answer = ask();
  for (const piece of ["com", "mi", "t\r", "\n"]) {
    stdin.write(piece);
    await turn();
  }
  await expect(answer).resolves.toBe("commit");
});

test("unknown lines are warned of and ignored, however long they are", async () => {
  const { stdin, ask, warnings } = holding();
  const answer = ask();
  stdin.write("yes\nCOMMIT\n\n");
  for (let i = 0; i < 100; i++) stdin.write("x".repeat(10_000));
  stdin.write("\n");
  stdin.write(`commit${" ".repeat(300)}x\n`);
  await turn();
  expect(warnings).toHaveLength(5);
  stdin.write("abort\n");
  await expect(answer).resolves.toBe("abort");
});

test("only the first answer after the drain counts", async () => {
  const { stdin, ask, warnings, signal } = holding();
  const answer = ask();
  stdin.write("commit\nabort\n");
  await expect(answer).resolves.toBe("commit");
  expect(warnings).toHaveLength(1);
  expect(signal.aborted).toBe(false);
});

test("a cancelled run does not wait for the answer any longer", async () => {
  const stdin = new PassThrough();
  const controller = new AbortController();
  const ignore = () => undefined;
  const hold = new Hold(stdin, ignore, { debug: ignore, info: ignore, warn: ignore, error: ignore });
  const answer = hold.confirm(DRAINED, controller.signal);
  controller.abort(new MultifdError("CANCELLED", "cancelled by SIGTERM"));
  await expect(answer).rejects.toMatchObject({ code: "CANCELLED" });
});

test("close lets go of stdin without taking that for an abort", async () => {
  const { stdin, hold, signal } = holding();
  hold.close();
  await turn();
  expect(stdin.destroyed).toBe(true);
  expect(signal.aborted).toBe(false);
});
