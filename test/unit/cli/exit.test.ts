import { spawn } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import { setTimeout as wait } from "node:timers/promises";
import { expect, test } from "vitest";
import { exitStatusOf } from "../../../src/cli/exit.ts";
import { ERROR_CODES, type ErrorCode, MultifdError } from "../../../src/index.ts";

const EXIT = new URL("../../../src/cli/exit.js", import.meta.url).href;

function leaving(code: string) {
  const source = `import { leave } from ${JSON.stringify(EXIT)};\n${code}`;
  return spawn(process.execPath, ["--input-type=module", "-e", source], {
    stdio: ["ignore", "pipe", "inherit"],
  });
}

test("every code has its own exit status", () => {
  for (const code of Object.keys(ERROR_CODES) as ErrorCode[]) {
    expect(exitStatusOf(new MultifdError(code, "x"))).toBe(ERROR_CODES[code].exitStatus);
  }
});

test("a cancellation by a signal is 128 + its number", () => {
  const by = (signal: string) => exitStatusOf(new MultifdError("CANCELLED", "x", { signal }));
  expect(by("SIGHUP")).toBe(129);
  expect(by("SIGINT")).toBe(130);
  expect(by("SIGTERM")).toBe(143);
});

test("anything else that is thrown is an internal error", () => {
  expect(exitStatusOf(new TypeError("x"))).toBe(1);
  expect(exitStatusOf(undefined)).toBe(1);
});

test("what was written reaches a slow reader whole before the process ends", async () => {
  const child = leaving(`process.stdout.write("x".repeat(1_000_000)); leave(4);`);
  await wait(300);
  const [[status], words] = await Promise.all([once(child, "close"), text(child.stdout)]);
  expect(words).toHaveLength(1_000_000);
  expect(status).toBe(4);
});

test("a reader that never comes back cannot keep the process alive", async () => {
  const child = leaving(`process.stdout.write("x".repeat(1_000_000)); leave(5);`);
  const [status] = await once(child, "exit");
  expect(status).toBe(5);
  child.stdout.destroy();
});

test("a stray handle cannot keep the process alive", async () => {
  const child = leaving("setInterval(() => {}, 1000); leave(3);");
  const [status] = await once(child, "close");
  expect(status).toBe(3);
});
