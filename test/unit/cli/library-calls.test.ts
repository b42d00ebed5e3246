import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { runCli } from "../../../src/cli/program.ts";
import {
  MultifdError,
  type RestoreOptions,
  type SaveOptions,
  type VerifyOptions,
} from "../../../src/index.ts";
import { SAMPLES } from "./samples.ts";

const library = vi.hoisted(() => ({ save: vi.fn(), restore: vi.fn(), verify: vi.fn(), inspect: vi.fn() }));
vi.mock("../../../src/control/save.js", () => ({ save: library.save }));
vi.mock("../../../src/control/restore.js", () => ({ restore: library.restore }));
vi.mock("../../../src/control/verify.js", () => ({ verify: library.verify }));
vi.mock("../../../src/control/inspect.js", async (original) => {
  return { ...(await original<object>()), inspect: library.inspect };
});

const ownListeners = process.listeners("uncaughtException");
let stdout = "";
let stderr = "";

beforeEach(() => {
  stdout = "";
  stderr = "";
  vi.spyOn(process.stdout, "write").mockImplementation((text) => {
    stdout += text;
    return true;
  });
  vi.spyOn(process.stderr, "write").mockImplementation((text) => {
    stderr += text;
    return true;
  });
});
afterEach(() => {
  vi.restoreAllMocks();
  // A command line is the only one in its process, and so leaves its handlers in place.
  for (const name of ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"]) process.removeAllListeners(name);
  for (const listener of process.listeners("uncaughtException")) {
    if (!ownListeners.includes(listener)) process.off("uncaughtException", listener);
  }
  process.stdout.removeAllListeners("error");
  process.stderr.removeAllListeners("error");
});

const names = () =>
  stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line).event);

test("every option of save reaches the library", async () => {
  library.save.mockResolvedValueOnce(SAMPLES.completed);
  const args =
    "save vm.mfd --listen tcp:10.0.0.1:4444 --allow-remote --discard-backlog --replace --allow-uid 7 --allow-uid 8 --channels 4 --offset 1M --direct-io on --format mapped-ram " +
    "--workers 3 --checksum none --connect-timeout 1.5 --stall-timeout 30 --rate 100M --expect-bytes 2G " +
    "--max-bytes 0x1000 --meta a=1 --meta b=2 --meta-file c=/dev/null --force --json --log-level error";
  expect(await runCli(args.split(" "))).toBe(0);
  const options: SaveOptions = library.save.mock.lastCall?.[0];
  expect(options).toEqual({
    image: "vm.mfd",
    listen: "tcp:10.0.0.1:4444",
    allowRemote: true,
    allowUids: [7, 8],
    discardBacklog: true,
    format: "mapped-ram",
    replace: true,
    channels: 4,
    offset: 1024 ** 2,
    directIo: "on",
    workers: 3,
    checksum: "none",
    connectTimeoutMs: 1500,
    stallTimeoutMs: 30_000,
    rate: 100 * 1024 ** 2,
    expectBytes: 2 * 1024 ** 3,
    maxBytes: 4096,
    meta: { a: "1", b: "2", c: Buffer.alloc(0) },
    force: true,
    confirm: undefined,
    signal: expect.any(AbortSignal),
    onEvent: expect.any(Function),
    log: expect.objectContaining({ warn: expect.any(Function) }),
  });
});

test("what is not given is left to the library's defaults", async () => {
  library.save.mockResolvedValueOnce(SAMPLES.completed);
  await runCli(["save", "vm.mfd", "--listen", "unix:/x"]);
  const given = Object.entries(library.save.mock.lastCall?.[0] ?? {}).filter(
    ([, value]) => value !== undefined,
  );
  expect(given.map(([name]) => name).sort()).toEqual(["image", "listen", "log", "onEvent", "signal"]);
});

test("every option of restore reaches the library", async () => {
  library.restore.mockResolvedValueOnce(SAMPLES.completed);
  const args =
    "restore fd:5 --connect unix:/x --offset 4K --direct-io off --workers 1 --connect-timeout 5 --stall-timeout 9 " +
    "--rate 1M --expect machine=pc-q35-7.2 --channels 2 --zeroed-ram --force --verify first " +
    "--uuid 00112233-4455-6677-8899-aabbccddeeff";
  expect(await runCli(args.split(" "))).toBe(0);
  expect(library.restore.mock.lastCall?.[0] as RestoreOptions).toMatchObject({
    image: "fd:5",
    connect: "unix:/x",
    offset: 4096,
    directIo: "off",
    workers: 1,
    connectTimeoutMs: 5000,
    stallTimeoutMs: 9000,
    rate: 1024 ** 2,
    expect: { machine: "pc-q35-7.2" },
    channels: 2,
    zeroedRam: true,
    uuid: "00112233-4455-6677-8899-aabbccddeeff",
    force: true,
    verify: "first",
  });
});

test("events of a run come after hello, and completed once, when the library has returned", async () => {
  library.save.mockImplementationOnce(async ({ onEvent }: SaveOptions) => {
    onEvent?.(SAMPLES.listening);
    onEvent?.(SAMPLES.channel);
    onEvent?.(SAMPLES.drained);
    onEvent?.(SAMPLES.completed);
    return SAMPLES.completed;
  });
  expect(await runCli(["save", "vm.mfd", "--listen", "unix:/x", "--json"])).toBe(0);
  expect(names()).toEqual(["hello", "listening", "channel", "drained", "completed"]);
  expect(stderr).toBe("");
});

test("a failure is the last event, one line on stderr and the code's exit status", async () => {
  library.save.mockRejectedValueOnce(new MultifdError("NO_SPACE", "no room for vm.mfd", { errno: "ENOSPC" }));
  expect(await runCli(["save", "vm.mfd", "--listen", "unix:/x", "--json"])).toBe(5);
  expect(names()).toEqual(["hello", "failed"]);
  expect(JSON.parse(stdout.trimEnd().split("\n")[1] ?? "")).toMatchObject({
    code: "NO_SPACE",
    message: "no room for vm.mfd",
    details: { errno: "ENOSPC" },
  });
  expect(stderr).toBe("multifd-helper: no room for vm.mfd [NO_SPACE]\n");
});

test("a signal cancels the run, and gives 128 + its number", async () => {
  library.save.mockImplementationOnce(({ signal }: SaveOptions) => {
    process.emit("SIGHUP");
    process.emit("SIGTERM");
    return Promise.reject(signal?.reason);
  });
  expect(await runCli(["save", "vm.mfd", "--listen", "unix:/x", "--json"])).toBe(129);
  expect(JSON.parse(stdout.trimEnd().split("\n")[1] ?? "")).toMatchObject({
    event: "failed",
    code: "CANCELLED",
    details: { signal: "SIGHUP" },
  });
});

test("a person gets one closing line on stdout", async () => {
  library.save.mockResolvedValueOnce(SAMPLES.completed);
  await runCli(["save", "vm.mfd", "--listen", "unix:/x"]);
  expect(stdout).toBe("Saved 1.0 GiB over main + 1 channel to vm.mfd in 0.9 s (1.1 GiB/s), sealed.\n");

  stdout = "";
  library.restore.mockResolvedValueOnce(SAMPLES.completed);
  await runCli(["restore", "vm.mfd", "--connect", "unix:/x"]);
  expect(stdout).toMatch(
    /^Delivered 1\.0 GiB over main \+ 1 channel from vm\.mfd in 0\.9 s .*query-migrate.*\n$/,
  );
});

test("verify completes with what was checked", async () => {
  const report = {
    path: "vm.mfd",
    checked: "structure only",
    blocks: 1025,
    bytes: 1_073_745_920,
    elapsedMs: 480,
    resumed: SAMPLES.completedVerify.resumed,
  };
  library.verify.mockResolvedValue(report);
  expect(
    await runCli(["verify", "vm.mfd", "--direct-io", "off", "--workers", "2", "--offset", "8K", "--json"]),
  ).toBe(0);
  expect(library.verify.mock.lastCall?.[0] as VerifyOptions).toMatchObject({
    image: "vm.mfd",
    directIo: "off",
    workers: 2,
    offset: 8192,
  });
  expect(JSON.parse(stdout.trimEnd().split("\n")[1] ?? "")).toEqual({
    ...SAMPLES.completedVerify,
    time: expect.any(String),
  });

  stdout = "";
  await runCli(["verify", "vm.mfd"]);
  expect(stdout).toMatch(
    /^Verified vm\.mfd: 1\.0 GiB in 1025 blocks whole, as far as that tells, after 0\.5 s .*; checked: structure only\. An instant restore let its VM run at 2026.*\.\n$/,
  );
});

test("an exception that nobody caught cancels the run as an internal error", async () => {
  library.save.mockImplementationOnce(async ({ signal }: SaveOptions) => {
    const added = process
      .listeners("uncaughtException")
      .filter((listener) => !ownListeners.includes(listener));
    added[0]?.(new Error("surprise"), "uncaughtException");
    return Promise.reject(signal?.reason);
  });
  const status = await runCli(["save", "vm.mfd", "--listen", "unix:/x", "--log-level", "silent"]);
  expect(status).toBe(1);
  expect(stderr).toMatch(/surprise \[INTERNAL\]\n$/);
});
