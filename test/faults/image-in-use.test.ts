import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import { chmod, chown, mkdir, readFile, writeFile } from "node:fs/promises";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, test } from "vitest";
import { unguard } from "../../src/control/instant/guard-image.ts";
import { identityOf } from "../../src/control/instant/identity.ts";
import {
  completeMark,
  eraseMark,
  findMark,
  refuseUnmarkable,
  writeMark,
} from "../../src/control/mapped-ram/resumed.ts";
import { inspect, restore, save, verify } from "../../src/index.ts";
import { isImmutable, setImmutable } from "../../src/io/libc.ts";
import { exampleMapped } from "../support/example-mapped.ts";
import { failureOf } from "../support/expect-failure.ts";
import type { FaultSpec } from "../support/fault-spec.ts";
import { mappedFile } from "../support/mapped-file.ts";
import { ALIVE, GONE, markImage, markOf, RESUMED_MS, withContents } from "../support/marked-image.ts";
import { describeWithImmutable, describeWithLoopDevices, useMounts } from "../support/mounts.ts";
import { asUser, describeAsOtherUser, NOBODY } from "../support/other-user.ts";
import { useSaves } from "../support/save-under-test.ts";

const { scratch, start, argsOf } = useSaves();
const image = (): string => scratch.file("vm.mr");
const MARKER = fileURLToPath(new URL("../support/workers/marker.js", import.meta.url));
const HOOK = new URL("../support/fault-hook.js", import.meta.url).href;
const BUSY = { status: 5, code: "TARGET_BUSY" };

const foreign = (): Buffer => mappedFile({ blocks: [{ name: "mem", bytes: 81_920, pages: { 0: 1 } }] });
const KINDS = [
  ["sealed", () => exampleMapped().bytes],
  ["without a seal", foreign],
] as const;

const markers: ChildProcess[] = [];
afterEach(async () => {
  for (const marker of markers.splice(0)) marker.kill("SIGKILL");
  if (fs.existsSync(image())) makeMutable(image());
});

function makeMutable(file: string): void {
  const fd = fs.openSync(file, "r");
  if (isImmutable(fd)) setImmutable(fd, false);
  fs.closeSync(fd);
}

/** Starts what marks an image, with a fault if one is wanted. */
function marker(args: readonly string[], fault?: FaultSpec, uid?: number): ChildProcess {
  const child = spawn(process.execPath, ["--import", HOOK, MARKER, image(), ...args], {
    stdio: "pipe",
    env: { ...process.env, FAULT: JSON.stringify(fault ?? null) },
    ...(uid === undefined ? {} : { uid, gid: uid }),
  });
  markers.push(child);
  return child;
}

async function textOf(stream: Readable, until = ""): Promise<string> {
  let text = "";
  for await (const chunk of stream) {
    text += String(chunk);
    if (until !== "" && text.includes(until)) break;
  }
  return text;
}

const KILLS: readonly (readonly [string, Partial<FaultSpec>, "none" | "mark" | "torn"])[] = [
  ["before the mark is written", { call: "write", when: "before" }, "none"],
  ["in the middle of it", { call: "write", act: "tear" }, "torn"],
  ["before it is flushed", { call: "fsync", when: "before" }, "mark"],
  ["when it was flushed", { call: "fsync", when: "after" }, "mark"],
];

describe.each(KINDS)("an image %s that is being marked", (_kind, content) => {
  test.each(KILLS)("by a process that is killed %s", async (_when, fault, left) => {
    await writeFile(image(), content());
    const child = marker([], {
      thread: "main",
      call: "write",
      nth: 1,
      when: "before",
      act: "kill",
      ...fault,
    });
    const [told] = await Promise.all([textOf(child.stdout as Readable), once(child, "close")]);
    expect({ told, signal: child.signalCode }).toEqual({ told: "", signal: "SIGKILL" });
    const restored = await failureOf(restore({ image: image(), connect: `unix:${scratch.file("nobody")}` }));
    const wanted = { none: "CONNECT_FAILED", torn: "IMAGE_DAMAGED", mark: "VM_RAN_ON" } as const;
    expect(restored?.code).toBe(wanted[left]);
    // Who comes next can be told from who was there.
    if (left !== "torn") await markImage(image(), markOf(ALIVE));
  });

  test("says that the VM may run only when the mark is there", async () => {
    await writeFile(image(), content());
    expect(await textOf(marker([]).stdout as Readable)).toBe("marked\n");
    expect(await withContents(image(), findMark)).toEqual(markOf(GONE));
  });

  test.each(["write", "fsync"] as const)("where %s fails is as it was", async (call) => {
    await writeFile(image(), content());
    const child = marker([], { thread: "main", call, nth: 1, when: "before", act: "fail", errno: "ENOSPC" });
    const [told, why] = await Promise.all([
      textOf(child.stdout as Readable),
      textOf(child.stderr as Readable),
    ]);
    expect(told).toBe("");
    expect(why).toContain("NO_SPACE");
    expect((await readFile(image())).equals(content())).toBe(true);
  });

  test("says when the restore is complete, and is as it was when the mark is taken back", async () => {
    await writeFile(image(), content());
    await markImage(image(), markOf(GONE));
    await withContents(image(), (fd, contents) =>
      completeMark(fd, contents, { image: image(), completedMs: RESUMED_MS + 1 }),
    );
    const completed = await withContents(image(), findMark);
    expect(completed).toEqual(markOf(GONE, { completedMs: RESUMED_MS + 1 }));
    await withContents(image(), (fd, contents) => eraseMark(fd, contents, image()));
    expect((await readFile(image())).equals(content())).toBe(true);
  });

  test("is marked by one of two, also when both have found no mark", async () => {
    await writeFile(image(), content());
    const outcomes = await withContents(image(), (fd, contents) =>
      withContents(image(), async (other, same) => {
        const how = { image: image(), expected: null };
        const first = await failureOf(writeMark(fd, contents, markOf(ALIVE), how));
        const second = await failureOf(writeMark(other, same, markOf(GONE), how));
        return [first, second?.code];
      }),
    );
    expect(outcomes).toEqual([null, "TARGET_BUSY"]);
    const late = await withContents(image(), (fd, contents) =>
      failureOf(writeMark(fd, contents, markOf(GONE), { image: image(), expected: null })),
    );
    expect(late?.code).toBe("VM_RAN_ON");
    expect(await withContents(image(), findMark)).toEqual(markOf(ALIVE));
  });
});

describe("an image out of which a VM still gets RAM", () => {
  test("is locked: no save to its path, no restore, no verify, until its helper ends", async () => {
    await writeFile(image(), exampleMapped().bytes);
    const child = marker(["--guard"]);
    await textOf(child.stdout as Readable, "guarded");
    const refused = await start(argsOf(image(), ["--force"])).failure();
    expect(refused).toMatchObject(BUSY);
    expect(refused.message).toContain("a VM that was resumed from it still needs it");
    expect(await start(argsOf(image(), ["--replace"])).failure()).toMatchObject(BUSY);
    expect(await start(["verify", image(), "--json"]).failure()).toMatchObject(BUSY);
    expect(await scratch.names()).toEqual(["vm.mr"]);
    child.stdin?.end();
    expect(await once(child, "exit")).toEqual([0, null]);
    fs.accessSync(image(), fs.constants.W_OK);
    await verify({ image: image() });
  });

  test("is not replaced as long as its QEMU lives, also when its helper was killed", async () => {
    for (const [mark, unforced, forced] of [
      [markOf(ALIVE), "TARGET_BUSY", "TARGET_BUSY"],
      [markOf(null), "TARGET_BUSY", "listening"],
      [markOf(GONE), "listening", "listening"],
      [markOf(ALIVE, { completedMs: 1 }), "listening", "listening"],
    ] as const) {
      await writeFile(image(), exampleMapped().bytes);
      await markImage(image(), mark);
      expect(await saving(false)).toBe(unforced);
      expect(await saving(true)).toBe(forced);
    }
  });

  /** How far a save to the image's path gets. */
  async function saving(force: boolean): Promise<string> {
    const listening = new AbortController();
    const failure = await failureOf(
      save({
        ...{ image: image(), listen: `unix:${scratch.file("s")}`, force },
        ...{ signal: listening.signal, onEvent: () => listening.abort() },
      }),
    );
    return listening.signal.aborted ? "listening" : String(failure?.code);
  }

  test("in a managed place is not removed or discarded", async () => {
    const state = scratch.file("state");
    const managed = scratch.file("state/web.mfd");
    await mkdir(state, { mode: 0o700 });
    await writeFile(managed, exampleMapped().bytes);
    await markImage(managed, markOf(ALIVE));
    for (const args of [
      ["managed-remove", "web"],
      ["start", "web", "--discard"],
    ]) {
      const end = args[0] === "start" ? ["--", "false"] : [];
      const run = start([...args, "--json", "--state-dir", state, ...end]);
      expect(await run.failure(), args[0]).toMatchObject(BUSY);
    }
    expect(fs.existsSync(managed)).toBe(true);
  });
});

describeWithImmutable("an image that a VM depends on, where it can be made immutable", () => {
  test("stays where and as it is, also after a kill -9, and who is in its way says why", async () => {
    await writeFile(image(), exampleMapped().bytes);
    const child = marker(["--guard"]);
    await textOf(child.stdout as Readable, "guarded");
    child.kill("SIGKILL");
    await once(child, "exit");
    expect(() => fs.renameSync(image(), scratch.file("else"))).toThrow("EPERM");
    expect(() => fs.writeFileSync(image(), "x")).toThrow("EPERM");
    const refused = await start(argsOf(image())).failure();
    expect(refused).toMatchObject(BUSY);
    expect(refused.message).toContain(`chattr -i ${image()}`);
    // A resume marks it anew.
    await markImage(image(), markOf(ALIVE));
    expect(await withContents(image(), findMark)).toEqual(markOf(ALIVE));
    fs.renameSync(image(), scratch.file("else"));
  });

  test("that was immutable before is not changed", async () => {
    await writeFile(image(), exampleMapped().bytes);
    const fd = fs.openSync(image(), "r");
    setImmutable(fd, true);
    const refused = await failureOf(markImage(image(), markOf(ALIVE)));
    expect(refused).toMatchObject({ code: "READ_ONLY", message: expect.stringContaining("flags (lsattr)") });
    expect(() => refuseUnmarkable(fd, { stream: { end: 1 }, seal: null }, image())).toThrow(
      expect.objectContaining({ code: "READ_ONLY" }),
    );
    const unable = (): void => asUser(NOBODY, () => unguard(fd, image()));
    expect(unable).toThrow(`it takes root to change that: chattr -i ${image()}`);
    unguard(fd, image());
    fs.closeSync(fd);
    expect(await withContents(image(), findMark)).toBeNull();
  });
});

describeAsOtherUser("an image that a VM depends on, without root's rights", () => {
  test("is locked only, and a note says so", async () => {
    await chmod(scratch.directory, 0o777);
    await writeFile(image(), exampleMapped().bytes);
    await chown(image(), NOBODY, NOBODY);
    const child = marker(["--guard"], undefined, NOBODY);
    const noted = textOf(child.stderr as Readable, "removed");
    await textOf(child.stdout as Readable, "guarded");
    expect(await noted).toContain("cannot be made immutable (EPERM)");
    expect(await start(argsOf(image())).failure()).toMatchObject(BUSY);
  });
});

describeWithLoopDevices("an image on a block device", () => {
  const mounts = useMounts();

  test("is marked, kept, and without its mark once it is saved over", async () => {
    await writeFile(image(), exampleMapped().bytes);
    const device = mounts.loopDevice(scratch.file("device"), 4 * 2 ** 20);
    const convert = ["convert", image(), device, "--format", "mapped-ram", "--json"];
    await start(convert).success();
    await markImage(device, markOf(ALIVE));
    expect(await start(convert).failure()).toMatchObject(BUSY);
    await markImage(device, markOf(GONE));
    const restore = ["restore", device, "--json", "--connect", `unix:${scratch.file("nobody")}`];
    expect((await start(restore).failure()).code).toBe("VM_RAN_ON");
    expect(await verify({ image: device })).toMatchObject({ resumed: { qemu: GONE } });
    await start(convert).success();
    expect(await inspect({ image: device })).toMatchObject({ sealed: true, resumed: null });
  });

  test("without a seal has no place for a mark", async () => {
    const device = mounts.loopDevice(scratch.file("device"), 2 ** 20);
    const fd = fs.openSync(device, "r");
    const contents = { stream: { end: 2 ** 20 - 4096 }, seal: null };
    const how = { image: device, expected: null };
    for (const failure of [
      await failureOf(writeMark(fd, contents, markOf(ALIVE), how)),
      await failureOf((async () => refuseUnmarkable(fd, contents, device))()),
    ]) {
      expect(failure).toMatchObject({ code: "TARGET_REFUSED", message: expect.stringContaining("no seal") });
    }
    fs.closeSync(fd);
  });
});

test("a process is itself, whatever it is called, until it ends", async () => {
  const program = scratch.file("a) R 1 (b");
  fs.symlinkSync("/bin/cat", program);
  const child = spawn(program, { stdio: ["pipe", "ignore", "ignore"] });
  await once(child, "spawn");
  const pid = child.pid as number;
  const found = identityOf(pid);
  expect(found).toMatchObject({ pid, bootId: expect.stringMatching(/^[0-9a-f-]{36}$/) });
  expect(found?.startTicks).toBeGreaterThan(0);
  expect(identityOf(pid)).toEqual(found);
  child.stdin?.end();
  await once(child, "exit");
  expect(identityOf(pid)).toBeNull();
  expect(identityOf(0)).toBeNull();
});
