import fs from "node:fs";
import { afterEach, expect, test } from "vitest";
import { restore, save, verify } from "../../src/index.ts";
import { readChannels } from "../support/built-image.ts";
import { FakePeer, tinyMigration } from "../support/fake-peer.ts";
import { useRawListeners } from "../support/raw-listener.ts";
import { RecordingDestination } from "../support/recording-destination.ts";
import { useSaves } from "../support/save-under-test.ts";

const O_CLOEXEC = 0o2000000;
const { scratch, listening } = useSaves();
const rawListener = useRawListeners();

const open: number[] = [];
afterEach(() => {
  for (const fd of open.splice(0)) fs.closeSync(fd);
});

function openFile(name: string): number {
  const fd = fs.openSync(scratch.file(name), "w+");
  open.push(fd);
  return fd;
}

/** Descriptors of a process beyond the standard three that a program it starts would inherit, but for the tests' own. */
function inheritable(pid: number): string[] {
  const ours = pid === process.pid ? [] : inheritable(process.pid);
  return fs.readdirSync(`/proc/${pid}/fd`).filter((fd) => {
    if (Number(fd) <= 2 || ours.includes(fd)) return false;
    const [, flags = "0"] = /^flags:\s+(\d+)/m.exec(infoOf(pid, fd)) ?? [];
    return (Number.parseInt(flags, 8) & O_CLOEXEC) === 0;
  });
}

/** Closed meanwhile, as the one that listed the directory: as good as close-on-exec. */
function infoOf(pid: number, fd: string): string {
  try {
    return fs.readFileSync(`/proc/${pid}/fdinfo/${fd}`, "utf8");
  } catch {
    return `flags: ${O_CLOEXEC.toString(8)}`;
  }
}

function children(pid: number): string {
  const threads = fs.readdirSync(`/proc/${pid}/task`);
  return threads.map((thread) => fs.readFileSync(`/proc/${pid}/task/${thread}/children`, "utf8")).join("");
}

test("no descriptor of the helper, inherited or its own, could leak to another program", async () => {
  const fds = [rawListener(scratch.file("managers")), openFile("image")];
  // Numbers beyond those that Node itself looks after.
  const shell = 'exec 40<&3 3<&- 41<>/proc/self/fd/4 4<&-; exec "$0" "$@"';
  const args = ["--listen", "fd:40", "--die-with-parent", "--hold"];
  const { helper } = await listening("fd:41", args, { fds, shell });
  expect(inheritable(helper.pid)).toEqual([]);
  const peer = new FakePeer(`unix:${scratch.file("managers")}`);
  await peer.playWithoutEnd(tinyMigration());
  await helper.waitEvent("channel", ({ channel }) => channel === 1);
  expect(inheritable(helper.pid)).toEqual([]);
  expect(children(helper.pid)).toBe("");
  peer.vanish();
  helper.say("abort");
  await helper.failure();
});

test("the manager's descriptors stay the manager's: open, and where they were", async () => {
  const fd = openFile("image");
  fs.writeSync(fd, "header");
  const socket = rawListener(scratch.file("managers"));
  const { helper } = await listening("fd:4", ["--listen", "fd:3", "--offset", "4096"], { fds: [socket, fd] });
  await new FakePeer(`unix:${scratch.file("managers")}`).play(tinyMigration());
  await helper.success();
  const info = fs.readFileSync(`/proc/self/fdinfo/${fd}`, "utf8");
  expect(info).toMatch(/^pos:\s+6$/m);
  expect(fs.fstatSync(socket).isSocket()).toBe(true);
  await verify({ image: `fd:${fd}`, offset: 4096, workers: 1 });
});

test("as a library, nothing stays open: saves, restores, verifies, refusals and failures in turn", async () => {
  const image = scratch.file("vm.mfd");
  const saved = (address: string, streams = tinyMigration()): Promise<unknown> =>
    save({
      image,
      listen: address,
      workers: 1,
      allowUids: [12345],
      onEvent: (event) => {
        if (event.event === "listening") void new FakePeer(event.address).play(streams);
      },
    });
  const round = async (): Promise<void> => {
    await saved(`unix:${scratch.file("s")}`);
    await expect(saved(`unix:${scratch.file("s")}`, tinyMigration().slice(1))).rejects.toThrow();
    await expect(saved(`unix:${scratch.file("no/s")}`)).rejects.toThrow();
    await verify({ image, workers: 1 });
    const { channels } = await readChannels(image);
    const destination = await RecordingDestination.listen(scratch.file("in"), channels);
    await restore({ image, connect: destination.address, workers: 1, verify: "first" });
    await destination.close();
  };
  await round();
  const before = fs.readdirSync("/proc/self/fd").length;
  for (let n = 0; n < 5; n++) await round();
  expect(fs.readdirSync("/proc/self/fd").length).toBe(before);
});
