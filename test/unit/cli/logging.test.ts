import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { openLog } from "../../../src/cli/logging.ts";

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "log-"));
});
afterAll(() => rm(folder, { recursive: true }));

test("a log file is for its owner alone, and has warnings at once but nothing below", async () => {
  const logFile = join(folder, "new.log");
  const beforeLine = vi.fn();
  const log = openLog({ logFile }, beforeLine);
  log.info({ channel: 3 }, "quiet");
  log.warn({ channel: 3 }, "loud");
  const line = JSON.parse(await readFile(logFile, "utf8"));
  expect(line).toMatchObject({ level: 40, channel: 3, msg: "loud", pid: process.pid });
  expect(line.time).toMatch(/^\d{4}-.*Z$/);
  expect((await stat(logFile)).mode & 0o777).toBe(0o600);
  expect(beforeLine).not.toHaveBeenCalled();
});

test("a log file is appended to, at the level that was asked for", async () => {
  const logFile = join(folder, "old.log");
  await writeFile(logFile, "earlier\n");
  openLog({ logFile, logLevel: "debug" }, () => undefined).debug({}, "now");
  expect(await readFile(logFile, "utf8")).toMatch(/^earlier\n\{.*"msg":"now"\}\n$/);
});

test("a log that cannot be written does no harm", async () => {
  const log = openLog({ logFile: "/dev/full" }, () => undefined);
  for (let i = 0; i < 3; i++) log.error({}, "lost");
});
