import { type ChildProcess, spawn } from "node:child_process";
import fs from "node:fs";
import { writeFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { MAIN } from "../../src/entry-points.ts";
import { verify } from "../../src/index.ts";
import { FakePeer, tinyMigration } from "../support/fake-peer.ts";
import { describeWithMounts } from "../support/mounts.ts";
import { goodImage, useSaves } from "../support/save-under-test.ts";
import { useScratch } from "../support/scratch.ts";

const PATIENCE_MS = 15_000;

/**
 * A manager that starts a helper, from a thread that ends at once if asked, tells its pid, and hands on its own
 * standard input; the helper's events go to a file, which outlives the manager.
 */
const MANAGER = `
  const { spawn } = require("node:child_process");
  const { openSync } = require("node:fs");
  const { Worker, isMainThread, workerData } = require("node:worker_threads");
  const [thread, events, ...args] = isMainThread ? process.argv.slice(1) : workerData;
  function start() {
    const out = openSync(events, "w");
    const child = spawn(process.execPath, args, { stdio: ["pipe", out, out] });
    console.log(child.pid);
    return child;
  }
  if (isMainThread && thread === "thread") {
    new Worker(process.env.MANAGER, { eval: true, workerData: process.argv.slice(1) })
      .on("exit", () => console.log("thread ended"));
    setInterval(() => {}, 1000);
  } else if (isMainThread) {
    process.stdin.pipe(start().stdin);
  } else {
    start();
    setTimeout(() => process.exit(), 100);
  }
`;

const scratch = useScratch();
const managers: ChildProcess[] = [];
const helpers: number[] = [];
afterEach(() => {
  for (const manager of managers.splice(0)) manager.kill("SIGKILL");
  for (const pid of helpers.splice(0)) if (runs(pid)) process.kill(pid, "SIGKILL");
});

let before: Buffer;
beforeEach(async () => {
  before = await goodImage();
  await writeFile(scratch.file("vm.mfd"), before);
});

interface Family {
  readonly manager: ChildProcess;
  readonly helper: number;
  readonly said: () => string;
}

/** A save whose parent is another process, and which has come as far as listening. */
async function family(how: "process" | "thread", ...options: readonly string[]): Promise<Family> {
  const save = [
    "save",
    scratch.file("vm.mfd"),
    "--json",
    "--listen",
    `unix:${scratch.file("s")}`,
    ...options,
  ];
  const manager = spawn(process.execPath, ["-e", MANAGER, how, scratch.file("events"), MAIN, ...save], {
    stdio: ["pipe", "pipe", "inherit"],
    env: { ...process.env, MANAGER },
  });
  managers.push(manager);
  let said = "";
  manager.stdout?.setEncoding("utf8").on("data", (text: string) => {
    said += text;
  });
  await until(() => events().includes("listening"));
  const helper = Number(/^\d+/.exec(said)?.[0]);
  helpers.push(helper);
  return { manager, helper, said: () => said };
}

const events = (): string =>
  fs.existsSync(scratch.file("events")) ? fs.readFileSync(scratch.file("events"), "utf8") : "";

/** Whether there is such a process that has not ended: nobody may have taken the exit status of one that has. */
function runs(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(fs.readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

async function until(met: () => boolean): Promise<void> {
  const deadline = Date.now() + PATIENCE_MS;
  while (!met()) {
    if (Date.now() > deadline) throw new Error(`it has not come; the helper told: ${events()}`);
    await sleep(10);
  }
}

async function expectUntouched(): Promise<void> {
  expect(await scratch.names()).toEqual(["events", "vm.mfd"]);
  expect(before.equals(await scratch.read("vm.mfd"))).toBe(true);
}

describe("--die-with-parent", () => {
  test.each(["SIGKILL", "SIGTERM"] as const)(
    "a manager that ends by %s takes its helper along",
    async (signal) => {
      const { manager, helper } = await family("process", "--die-with-parent");
      const at = Date.now();
      manager.kill(signal);
      await until(() => !runs(helper));
      expect(Date.now() - at).toBeLessThan(5000);
      expect(events()).toContain('"code":"ABORTED"');
      await expectUntouched();
    },
  );

  test("and in the middle of the data", async () => {
    const { manager, helper } = await family("process", "--die-with-parent");
    const peer = new FakePeer(`unix:${scratch.file("s")}`);
    await peer.playWithoutEnd(tinyMigration());
    await until(() => events().includes('"progress"'));
    manager.kill("SIGKILL");
    await until(() => !runs(helper));
    expect(events()).toContain('"code":"ABORTED"');
    await expectUntouched();
  });

  test("a manager that has said commit need not see the end", async () => {
    const { manager, helper } = await family("process", "--die-with-parent", "--hold");
    const peer = new FakePeer(`unix:${scratch.file("s")}`);
    const [main = Buffer.alloc(0), ...channels] = tinyMigration();
    const first = await peer.connect();
    for (const channel of channels) (await peer.connect()).end(channel);
    manager.stdin?.write("commit\n");
    await sleep(300);
    manager.kill("SIGKILL");
    await until(() => !runs(Number(manager.pid)));
    await sleep(600);
    first.end(main);
    await until(() => !runs(helper));
    expect(events()).toContain('"event":"completed"');
    expect(await scratch.names()).toEqual(["events", "vm.mfd"]);
    expect(before.equals(await scratch.read("vm.mfd"))).toBe(false);
    await verify({ image: scratch.file("vm.mfd"), workers: 1 });
  });

  test("a thread of the manager that ends is not the manager's end", async () => {
    const { manager, helper, said } = await family("thread", "--die-with-parent");
    await until(() => said().includes("thread ended"));
    await sleep(600);
    expect(runs(helper)).toBe(true);
    manager.kill("SIGKILL");
    await until(() => !runs(helper));
    await expectUntouched();
  });
});

test("without --die-with-parent a helper outlives its manager", async () => {
  const { manager, helper } = await family("process");
  manager.kill("SIGKILL");
  await until(() => !runs(Number(manager.pid)));
  await sleep(600);
  expect(runs(helper)).toBe(true);
  await new FakePeer(`unix:${scratch.file("s")}`).play(tinyMigration());
  await until(() => !runs(helper));
  expect(events()).toContain('"event":"completed"');
  await verify({ image: scratch.file("vm.mfd"), workers: 1 });
});

describeWithMounts("a parent in another pid namespace", () => {
  const saves = useSaves();

  test("is no parent whose end could be noticed: a warning says so", async () => {
    const shell = 'exec unshare --pid --fork --kill-child "$0" "$@"';
    const image = saves.scratch.file("vm.mfd");
    const { helper, peer } = await saves.listening(image, ["--die-with-parent"], { shell });
    await peer.play(tinyMigration());
    await helper.success();
    expect(helper.stderr).toContain("another pid namespace");
  });
});
