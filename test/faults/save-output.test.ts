import { execFileSync } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { inspect } from "../../src/index.ts";
import { tinyMigration } from "../support/fake-peer.ts";
import { useSaves } from "../support/save-under-test.ts";
import { runCommand } from "../unit/cli/run-cli.ts";

const { scratch, start, listening, argsOf } = useSaves();
const image = (): string => scratch.file("vm.mfd");
const SECRET = "a value that belongs to nobody's log";

describe("events", () => {
  test("of a success: hello first, completed last, each channel once, times that do not go back", async () => {
    const { helper, peer } = await listening(image(), ["--hold", "--log-level", "trace"]);
    await peer.play(tinyMigration(3));
    helper.say("commit");
    const completed = await helper.success();
    const names = helper.events.map(({ event }) => event);
    expect(names.filter((name) => name !== "progress")).toEqual([
      "hello",
      "listening",
      ...Array.from({ length: 4 }, () => "channel"),
      "drained",
      "completed",
    ]);
    const channels = helper.events.filter(({ event }) => event === "channel").map(({ channel }) => channel);
    expect(new Set(channels)).toEqual(new Set(["main", 0, 1, 2]));
    const times = helper.events.map(({ time }) => Date.parse(time));
    expect(times).toEqual([...times].sort((a, b) => a - b));
    const figures = completed.channels as { channel: string | number; bytes: number }[];
    expect(figures.map(({ channel }) => channel)).toEqual(["main", 0, 1, 2]);
    expect(figures.map(({ bytes }) => bytes)).toEqual(tinyMigration(3).map(({ length }) => length));
  });

  test("of a failure: hello first, failed last, the same sentence on stderr", async () => {
    const { helper, peer } = await listening(image(), ["--log-level", "trace"]);
    await peer.play([Buffer.from("nonsense that lasts for a while")]);
    await helper.failure();
    expect(helper.events[0]).toMatchObject({ event: "hello", contract: 1 });
    expect(helper.events.filter(({ event }) => event === "failed" || event === "completed")).toHaveLength(1);
  });

  test("go nowhere without --json; one sentence does", async () => {
    const helper = start([
      "save",
      image(),
      "--listen",
      `unix:${scratch.file("s")}`,
      "--connect-timeout",
      "0.2",
    ]);
    expect(await helper.exit()).toBe(6);
    expect(helper.events).toEqual([]);
    expect(helper.stderr).toMatch(/^multifd-helper: .* \[CONNECT_TIMEOUT\]\n$/);
  });
});

describe("--meta", () => {
  test("keeps text and binary, and their values out of every log", async () => {
    const binary = Buffer.from([0xff, 0x00, 0xfe, 0x0a, ...Buffer.from(SECRET)]);
    await writeFile(scratch.file("nvram"), binary);
    await writeFile(scratch.file("domain.xml"), `<domain>${SECRET} ü</domain>\n`);
    const { helper, peer } = await listening(image(), [
      ...["--meta", `name=${SECRET}`, "--meta", "empty=", "--meta", "equals=a=b=c"],
      ...[
        "--meta-file",
        `xml=${scratch.file("domain.xml")}`,
        "--meta-file",
        `nvram=${scratch.file("nvram")}`,
      ],
      ...["--log-level", "trace"],
    ]);
    await peer.play(tinyMigration());
    await helper.success();
    expect(helper.stderr).toContain("channel connected");
    expect(helper.stderr + JSON.stringify(helper.events)).not.toContain(SECRET);

    const { metadata } = await inspect({ image: image() });
    expect(metadata).toMatchObject({
      user: { name: SECRET, empty: "", equals: "a=b=c", xml: `<domain>${SECRET} ü</domain>\n` },
      userBinary: { nvram: binary.toString("base64") },
    });
    expect(await jsonOfInspect()).toMatchObject({ metadata });
    expect(await pageOfInspect()).not.toContain(SECRET);
  });

  test.each([
    [["--meta", "no-equals"], 2, "USAGE"],
    [["--meta", "key=1", "--meta", "key=2"], 2, "USAGE"],
    [["--meta-file", "key=/no/such/file"], 5, "IO"],
  ] as const)("%j is refused before anything is made", async (args, status, code) => {
    const helper = start(argsOf(image(), args));
    expect(await helper.failure()).toMatchObject({ status, code });
    expect(await scratch.names()).toEqual([]);
  });

  test("a FIFO as --meta-file is refused: waiting for its writer could not be cancelled", async () => {
    execFileSync("mkfifo", [scratch.file("fifo")]);
    const helper = start(argsOf(image(), ["--meta-file", `key=${scratch.file("fifo")}`]));
    expect(await helper.failure()).toMatchObject({ status: 2, code: "USAGE" });
  });

  async function pageOfInspect(): Promise<string> {
    const { stdout } = await runCommand("inspect", image());
    return stdout;
  }

  async function jsonOfInspect(): Promise<unknown> {
    const { stdout } = await runCommand("inspect", image(), "--json");
    return JSON.parse(stdout);
  }
});

describe("--log-file", () => {
  test("takes the log, 0600, appended to what is there; stderr keeps the failure's one line", async () => {
    const log = ["--log-file", scratch.file("log"), "--log-level", "debug"];
    for (const [round, streams] of [tinyMigration(), tinyMigration().slice(1)].entries()) {
      const { helper, peer } = await listening(image(), log, { umask: 0 });
      await peer.play(streams);
      if (round === 0) await helper.success();
      else await helper.failure();
      expect(helper.stderr.split("\n")).toHaveLength(round + 1);
    }
    expect(await scratch.mode("log")).toBe(0o600);
    const lines = (await scratch.read("log")).toString().trimEnd().split("\n");
    const entries = lines.map((line) => JSON.parse(line) as { msg: string; code?: string });
    expect(entries.filter(({ msg }) => msg === "channel connected").length).toBeGreaterThanOrEqual(4);
    expect(entries.at(-1)).toMatchObject({ code: "STREAM_INCOMPLETE" });
  });

  test("that cannot be opened is an error before anything is made", async () => {
    execFileSync("mkfifo", [scratch.file("unread")]);
    for (const log of ["no/log", "unread"]) {
      const helper = start(argsOf(image(), ["--log-file", scratch.file(log)]));
      expect(await helper.failure()).toMatchObject({ status: 5, code: "IO" });
    }
    expect(await scratch.names()).toEqual(["unread"]);
  });

  test("on a full disk costs the log and not the image", async () => {
    const { helper, peer } = await listening(image(), ["--log-file", "/dev/full", "--log-level", "trace"]);
    await peer.play(tinyMigration());
    await helper.success();
  });
});

describe("a manager that does not listen", () => {
  test("closes stdout and stderr: the save goes on", async () => {
    const { helper, peer } = await listening(image(), ["--log-level", "trace"]);
    helper.deafen();
    await peer.play(tinyMigration());
    expect(await helper.exit()).toBe(0);
    expect(await inspect({ image: image() })).toMatchObject({ sealed: true });
  });
});
