import fs from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { fillGuest } from "../src/bench/guest-fill.ts";
import { runRounds, type Way } from "../src/bench/rounds.ts";
import { median, pairedRatio, spreadOf } from "../src/bench/statistics.ts";
import { pickAccelerator } from "../src/demo/accelerator.ts";
import { guestArgs } from "../src/demo/guest.ts";
import { createRamFile, type RamFile } from "../src/demo/ram-file.ts";
import { restore, restoreInstant, save } from "../src/index.ts";
import { dropCached } from "../src/io/libc.ts";
import { findQemus, type QemuBinary } from "../src/vm/find-qemu.ts";
import { waitMigration } from "../src/vm/migration.ts";
import { type QemuProcess, startQemu } from "../src/vm/qemu-process.ts";

/*
 * How soon a guest runs: restored at once (its RAM follows) and plainly (first all of its RAM), with the image in the page cache
 * and without, for guests of several sizes. Each round has every way once, in alternating order. QEMU waits already, so that
 * its own start is in none of the figures.
 */

const { values } = parseArgs({
  options: {
    sizes: { type: "string", default: "256,1024,4096" },
    /** A guest of this size that has 256 MiB of data; 0: none. */
    sparse: { type: "string", default: "16384" },
    rounds: { type: "string", default: "7" },
    qemu: { type: "string" },
  },
});
const MIB = 2 ** 20;
const SPARSE_DATA_MIB = 256;
const MIGRATION_MS = 600_000;
const signal = new AbortController().signal;

interface Guest {
  readonly ramMiB: number;
  readonly dataMiB: number;
}

interface Sample {
  /** From the connection until the guest runs, in milliseconds. */
  readonly runningMs: number;
  /** From the connection until all of its RAM is there. */
  readonly wholeMs: number;
}

/** A QEMU with empty RAM that waits at `address`, and will run when it has what it needs. */
interface Destination {
  readonly vm: QemuProcess;
  readonly address: string;
  readonly ram: RamFile;
}

async function startGuest(
  binary: QemuBinary,
  ramMiB: number,
  ram: RamFile,
  incoming: boolean,
): Promise<QemuProcess> {
  const ramBytes = ramMiB * MIB;
  const memory = { kind: "file", path: ram.path } as const;
  return startQemu({
    binary,
    args: guestArgs({ ramBytes, memory, accelerator: await pickAccelerator(binary), incoming }),
  });
}

async function saveGuest(binary: QemuBinary, { ramMiB, dataMiB }: Guest, image: string): Promise<void> {
  const ram = await createRamFile(ramMiB * MIB);
  await fillGuest(ram.path, dataMiB * MIB, "random", signal);
  const vm = await startGuest(binary, ramMiB, ram, false);
  try {
    await setUp(vm, { multifd: true });
    const listen = `unix:${vm.socketPath("save")}`;
    await save({
      image,
      listen,
      format: "mapped-ram",
      onEvent: ({ event }) => {
        if (event === "listening") void vm.qmp.execute("migrate", { uri: listen });
      },
    });
  } finally {
    await vm.kill();
    await ram.close();
  }
}

async function setUp(vm: QemuProcess, capabilities: Readonly<Record<string, boolean>>): Promise<void> {
  const list = Object.entries({ ...capabilities, events: true });
  await vm.qmp.execute("migrate-set-capabilities", {
    capabilities: list.map(([capability, state]) => ({ capability, state })),
  });
  const channels = capabilities.multifd ? { "multifd-channels": 4 } : {};
  await vm.qmp.execute("migrate-set-parameters", { "max-bandwidth": 0, ...channels });
}

async function destination(binary: QemuBinary, ramMiB: number, instant: boolean): Promise<Destination> {
  const ram = await createRamFile(ramMiB * MIB);
  const vm = await startGuest(binary, ramMiB, ram, true);
  await setUp(vm, instant ? { "postcopy-ram": true } : { multifd: true });
  const address = `unix:${vm.socketPath("in")}`;
  await vm.qmp.execute("migrate-incoming", { uri: address });
  // While it waits this only says that it shall run (qmp_cont, QEMU 7.2 to 10.0).
  await vm.qmp.execute("cont");
  return { vm, address, ram };
}

async function sample(
  binary: QemuBinary,
  guest: Guest,
  image: string,
  instant: boolean,
  warm: boolean,
): Promise<Sample> {
  const { vm, address, ram } = await destination(binary, guest.ramMiB, instant);
  try {
    touch(image, warm);
    let connectedAt = 0;
    const running = vm.qmp
      .waitEvent(({ event }) => event === "RESUME", MIGRATION_MS)
      .then(() => performance.now());
    const onEvent = ({ event }: { readonly event: string }): void => {
      if (event === "channel" && connectedAt === 0) connectedAt = performance.now();
    };
    const options = { image, connect: address, onEvent, force: true };
    await (instant ? restoreInstant(options) : restore({ ...options, channels: 4, zeroedRam: true }));
    await waitMigration(vm.qmp, MIGRATION_MS);
    // The guest was saved before it ran, and comes back so; postcopy knows of no such thing.
    if (!instant) await vm.qmp.execute("cont");
    const wholeMs = performance.now() - connectedAt;
    return { runningMs: (await running) - connectedAt, wholeMs };
  } finally {
    await vm.kill();
    await ram.close();
  }
}

/** Into the page cache, or out of it. */
function touch(image: string, warm: boolean): void {
  const fd = fs.openSync(image, "r");
  const piece = Buffer.alloc(MIB);
  try {
    if (warm) while (fs.readSync(fd, piece) > 0);
    else dropCached(fd);
  } finally {
    fs.closeSync(fd);
  }
}

const WAYS = [
  { name: "instant, warm", instant: true, warm: true },
  { name: "plain, warm", instant: false, warm: true },
  { name: "instant, cold", instant: true, warm: false },
  { name: "plain, cold", instant: false, warm: false },
] as const;

async function compare(binary: QemuBinary, guest: Guest, image: string): Promise<void> {
  await saveGuest(binary, guest, image);
  const ways = WAYS.map(({ name, instant, warm }): Way<Sample> => {
    return { name, run: () => sample(binary, guest, image, instant, warm) };
  });
  const samples = await runRounds(ways, { rounds: Number(values.rounds), signal });
  for (const { name, warm } of WAYS) {
    const own = samples.get(name) ?? [];
    const plain = samples.get(warm ? "plain, warm" : "plain, cold") ?? [];
    const { lower, median: middle, upper } = spreadOf(own.map(({ runningMs }) => runningMs));
    const ratio = pairedRatio(
      own.map(({ runningMs }) => runningMs),
      plain.map(({ runningMs }) => runningMs),
    ).median;
    row(
      `${guest.ramMiB}`,
      `${guest.dataMiB}`,
      name,
      middle.toFixed(1),
      `${lower.toFixed(1)}-${upper.toFixed(1)}`,
      ratio.toFixed(3),
      median(own.map(({ wholeMs }) => wholeMs)).toFixed(0),
    );
  }
}

function row(...cells: readonly string[]): void {
  console.log(cells.map((cell, n) => (n === 2 ? cell.padEnd(14) : cell.padStart(12))).join(" "));
}

const binary = (await findQemus(values.qemu)).at(-1);
if (binary === undefined) throw new Error("needs a QEMU: run npm test once, which provides two");
const sizes = values.sizes.split(",").map(Number);
const guests: Guest[] = sizes.map((ramMiB) => ({ ramMiB, dataMiB: ramMiB }));
if (Number(values.sparse) > 0) guests.push({ ramMiB: Number(values.sparse), dataMiB: SPARSE_DATA_MIB });
const directory = await mkdtemp(join(tmpdir(), "multifd-bench-"));
try {
  const load = loadavg()[0]?.toFixed(1);
  console.log(
    `QEMU ${binary.version} with ${await pickAccelerator(binary)}, medians of ${values.rounds} rounds, load ${load}\n`,
  );
  row("RAM, MiB", "data, MiB", "restore", "runs, ms", "quartiles", "of plain", "whole, ms");
  for (const guest of guests) {
    const image = join(directory, "guest.mr");
    await compare(binary, guest, image);
    await rm(image);
  }
} finally {
  await rm(directory, { recursive: true, force: true });
}
