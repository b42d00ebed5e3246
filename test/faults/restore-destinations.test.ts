import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { compareFiles } from "../../src/demo/ram-pattern.ts";
import { waitMigration } from "../../src/vm/migration.ts";
import { buildImage, type ChannelContent, noiseChannels } from "../support/built-image.ts";
import { type CliResult, useCli } from "../support/cli-run.ts";
import { startIncoming } from "../support/incoming.ts";
import { type Guest, Lab } from "../support/lab.ts";
import { describeEachQemu } from "../support/qemus.ts";
import { seededRandom } from "../support/random.ts";
import { type Behaviour, RecordingDestination } from "../support/recording-destination.ts";
import { useVms } from "../support/vms.ts";

const MIB = 2 ** 20;

function expectFailure(result: CliResult, code: string, status: number, words: RegExp = /./): void {
  expect(result.events.at(-1)).toMatchObject({ event: "failed", code });
  expect(result.events.at(-1)?.message).toMatch(words);
  expect(result.status).toBe(status);
}

describe("a destination that is no QEMU, or not there", () => {
  const cli = useCli();
  const destinations: RecordingDestination[] = [];
  let directory: string;
  let image: string;
  let channels: readonly ChannelContent[];

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), "mfd-dest-"));
    image = join(directory, "vm.mfd");
    channels = noiseChannels(seededRandom(), { multifdChannels: 4, barriers: 3, epochBytes: MIB });
    await writeFile(image, buildImage(channels));
  });
  afterEach(async () => {
    await Promise.all(destinations.splice(0).map((destination) => destination.close()));
    await rm(directory, { recursive: true });
  });

  async function listen(behaviour: Behaviour): Promise<RecordingDestination> {
    const destination = await RecordingDestination.listen(join(directory, "socket"), channels, behaviour);
    destinations.push(destination);
    return destination;
  }

  const restored = (address: string, ...options: readonly string[]): Promise<CliResult> =>
    cli(["restore", image, "--connect", address, ...options], { boundMs: 15_000 }).finished;

  test("nobody has made the socket", async () => {
    const result = await restored(`unix:${join(directory, "nobody")}`);
    expectFailure(result, "CONNECT_FAILED", 3, /cannot connect to unix:.*nobody.*is QEMU waiting there/);
    expect(result.elapsedMs).toBeLessThan(5000);
  });

  test("the socket's owner is gone", async () => {
    // A socket file outlives only a process that had no time to remove it.
    const stale = join(directory, "left");
    const script = `require("net").createServer().listen(${JSON.stringify(stale)}, () => process.kill(process.pid, 9))`;
    spawnSync(process.execPath, ["-e", script]);
    expectFailure(await restored(`unix:${stale}`), "CONNECT_FAILED", 3, /ECONNREFUSED/);
  });

  test("nobody listens at the tcp port", async () => {
    const server = net.createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as net.AddressInfo;
    server.close();
    await once(server, "close");
    expectFailure(await restored(`tcp:127.0.0.1:${port}`), "CONNECT_FAILED", 3, /ECONNREFUSED/);
  });

  test("it reads nothing: --stall-timeout ends the wait", async () => {
    const { address } = await listen({ deaf: true });
    const result = await restored(address, "--stall-timeout", "0.5");
    expectFailure(result, "STALLED", 6, /0\.5 s/);
    expect(result.elapsedMs).toBeLessThan(10_000);
  });

  test("it reads nothing: SIGTERM ends the wait", async () => {
    const { address } = await listen({ deaf: true });
    const run = cli(["restore", image, "--connect", address], { boundMs: 15_000 });
    await run.until(({ event, channel }) => event === "channel" && channel === 3);
    await sleep(300);
    const killed = performance.now();
    run.kill("SIGTERM");
    expectFailure(await run.finished, "CANCELLED", 143);
    expect(performance.now() - killed).toBeLessThan(6000);
  });

  test.each([
    ["main", 0],
    ["channel 0", 1],
    ["channel 3", 4],
  ])("it closes %s early", async (name, peer) => {
    const after = Math.floor((channels[peer]?.bytes.length ?? 0) / 2);
    const { address } = await listen({ closes: { peer, after } });
    const label = name === "main" ? /^main channel: / : new RegExp(`^${name}: `);
    expectFailure(await restored(address), "DESTINATION_CLOSED", 3, label);
  });

  test("it closes everything in the middle", async () => {
    const { address } = await listen({ closes: { peer: 2, after: 100_000, all: true } });
    const result = await restored(address);
    expectFailure(result, "DESTINATION_CLOSED", 3, /QEMU's own messages/);
    expect(result.elapsedMs).toBeLessThan(5000);
  });

  test("it closes a channel when that was read to its end, but main not yet", async () => {
    const after = channels[1]?.bytes.length ?? 0;
    const { address } = await listen({
      closes: { peer: 1, after },
      holds: { peer: 0, ms: 3000, next: "read" },
    });
    const result = await restored(address, "--rate", "8M");
    expectFailure(result, "DESTINATION_CLOSED", 3, /^channel 0: /);
  });

  test("its backlog is full for good: --connect-timeout ends the wait", async () => {
    const path = join(directory, "full");
    const script = `
      const s = require("net").createServer().listen({ path: ${JSON.stringify(path)}, backlog: 1 }, () => {
        process.stdout.write("ready");
        for (;;); // accepts nobody, as a destination whose main loop is stuck
      });`;
    const stuck = spawn(process.execPath, ["-e", script], { stdio: ["ignore", "pipe", "inherit"] });
    try {
      await once(stuck.stdout, "data");
      stuck.kill("SIGSTOP"); // no need to burn a core meanwhile
      const result = await restored(`unix:${path}`, "--connect-timeout", "1");
      expectFailure(result, "CONNECT_TIMEOUT", 6, /within 1 s/);
    } finally {
      stuck.kill("SIGKILL");
    }
  });
});

describeEachQemu("a destination that is not what the image needs", (binary) => {
  const vms = useVms();
  const cli = useCli();
  const ramBytes = 64 * MIB;
  const uuid = "00112233-4455-6677-8899-aabbccddeeff";
  let lab: Lab;
  let source: Guest;
  let image: string;

  beforeAll(async () => {
    lab = await Lab.open();
    image = lab.file("vm.mfd");
    source = await lab.source({ binary, ramBytes, extraArgs: ["-uuid", uuid] });
    await lab.save(source, { channels: 4 }, { image });
  });
  afterAll(() => lab.close());

  const extraArgs = ["-uuid", uuid];
  const restored = (address: string, ...options: readonly string[]): Promise<CliResult> =>
    cli(["restore", image, "--connect", address, ...options], { boundMs: 20_000 }).finished;

  // `npm run crash-matrix` kills it at many more moments.
  test("it is killed at random", async () => {
    const random = seededRandom();
    const { vm, address } = await startIncoming(vms, binary, { channels: 4 }, { ramBytes, extraArgs });
    const run = cli(["restore", image, "--connect", address, "--rate", "30M"]);
    await run.until(({ event, channel }) => event === "channel" && channel === 3);
    await sleep(random.integer(800));
    const killed = performance.now();
    process.kill(vm.pid, "SIGKILL");
    const result = await run.finished;
    expectFailure(result, "DESTINATION_CLOSED", 3, /QEMU's own messages/);
    expect(performance.now() - killed, `TEST_SEED=${random.seed}`).toBeLessThan(4000);
  });

  test("it has another machine type", async () => {
    const options = { ramBytes, extraArgs, machine: "pc" };
    const { vm, address, monitor } = await startIncoming(vms, binary, { channels: 4 }, options);
    expectFailure(await restored(address), "DESTINATION_CLOSED", 3);
    await monitor.expectCleanEnd("another machine type");
    expect(vm.stderr).toMatch(/machine/i);
  });

  test("it has another UUID", async () => {
    const options = { ramBytes, extraArgs: ["-uuid", uuid.replace("00", "ff")] };
    const { vm, address, monitor } = await startIncoming(vms, binary, { channels: 4 }, options);
    const { status, events } = await restored(address);
    // It looks at the first channel's UUID at once, and may be gone before the last one connects.
    expect(events.at(-1)?.code).toBeOneOf(["DESTINATION_CLOSED", "CONNECT_FAILED"]);
    expect(status).toBe(3);
    if (binary.major >= 10) await monitor.expectCleanEnd("another UUID");
    else await monitor.alive(); // it refuses the channel, waits on, and can be told to quit
    monitor.stop();
    expect(vm.stderr).toMatch(/uuid/i);
  });

  test("it has another RAM size", async () => {
    const options = { ramBytes: ramBytes / 2, extraArgs };
    const { address, monitor } = await startIncoming(vms, binary, { channels: 4 }, options);
    expectFailure(await restored(address), "DESTINATION_CLOSED", 3);
    await monitor.expectCleanEnd("another RAM size");
  });

  test.each([0, 1, 3])("it expects %i channels where the image has 4", async (channels) => {
    const { address } = await startIncoming(vms, binary, { channels }, { ramBytes, extraArgs });
    const result = await restored(address, "--connect-timeout", "5", "--stall-timeout", "3");
    // It closes, as a surplus connection or with all of them when it is gone; CONNECT_FAILED is for one that is gone.
    expect(result.events.at(-1)?.code, JSON.stringify(result)).toBeOneOf([
      "DESTINATION_CLOSED",
      "CONNECT_FAILED",
    ]);
    expect(result.status).toBe(3);
  });

  test("it expects 6 channels where the image has 4", async () => {
    const { address, monitor } = await startIncoming(vms, binary, { channels: 6 }, { ramBytes, extraArgs });
    const result = await restored(address, "--stall-timeout", "1");
    expectFailure(result, "STALLED", 6);
    await monitor.alive(); // it waits for the rest of its channels, and can be told to quit
    monitor.stop();
  });

  test("it expects 6 channels, and nobody thought of --stall-timeout", async () => {
    const { address, monitor } = await startIncoming(vms, binary, { channels: 6 }, { ramBytes, extraArgs });
    const result = await restored(address, "--connect-timeout", "1.5");
    expectFailure(result, "CONNECT_TIMEOUT", 6, /waits for more channels/);
    await monitor.alive();
    monitor.stop();
  });

  test("tcp: the guest arrives whole", async () => {
    const server = net.createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as net.AddressInfo;
    server.close();
    await once(server, "close");
    const guest = await lab.destination(
      { binary, ramBytes, extraArgs },
      { channels: 4 },
      `tcp:127.0.0.1:${port}`,
    );
    const result = await restored(`tcp:127.0.0.1:${port}`);
    expect(result.status).toBe(0);
    await waitMigration(guest.vm.qmp, 20_000);
    const { differing } = await compareFiles(source.ram?.path as string, guest.ram?.path as string);
    expect(differing).toBe(0);
  });
});
