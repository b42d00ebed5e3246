import { open, readFile, rm, stat } from "node:fs/promises";
import { loadavg } from "node:os";
import { parseArgs } from "node:util";
import { fillGuest } from "../src/bench/guest-fill.ts";
import { median } from "../src/bench/statistics.ts";
import { findQemus } from "../src/vm/find-qemu.ts";
import { type FileGuest, FileLab, migrate, plainSettings, set } from "../test/support/file-lab.ts";

/*
 * The same paused guest, saved in turn by `save --format stream`, by `save --format mapped-ram` and by QEMU itself
 * (mapped-ram, direct-io), all through as many channels, into $TMPDIR. Each round has every way once, in
 * alternating order, so that a disk that drifts drifts for all. Only compare figures of one table.
 */

const { values } = parseArgs({
  options: {
    ram: { type: "string", default: "1024" },
    channels: { type: "string", default: "4" },
    rounds: { type: "string", default: "5" },
    fill: { type: "string", default: "random" },
    workers: { type: "string" },
  },
});
const MIB = 2 ** 20;
const ramBytes = Number(values.ram) * MIB;
const rounds = Number(values.rounds);
const counts = values.channels.split(",").map(Number);
if (![ramBytes / MIB, rounds, ...counts].every((value) => Number.isInteger(value) && value > 0)) {
  throw new Error("--ram (MiB), --rounds and --channels (such as 1,4,16) are whole numbers from 1");
}
const fromFile = values.fill.includes("/");
if (!["random", "mix"].includes(values.fill) && !fromFile) {
  const text =
    "--fill is random (no page like another), mix (many zero pages, alone and in runs), or the path of a guest's memory";
  throw new Error(text);
}

type Way = "stream" | "mapped-ram" | "qemu";
const WAYS: readonly Way[] = ["stream", "mapped-ram", "qemu"];

interface Taken {
  readonly ms: number[];
  diskBytes: number;
}

/** Real memory, as `extract` gives it, over and over until the guest is full. */
async function memoryFrom(file: string, path: string): Promise<void> {
  const memory = await readFile(file);
  const into = await open(path, "r+");
  try {
    for (let at = 0; at < ramBytes; at += memory.length) {
      await into.write(memory, 0, Math.min(memory.length, ramBytes - at), at);
    }
  } finally {
    await into.close();
  }
}

async function saveBy(way: Way, guest: FileGuest, channels: number, image: string): Promise<void> {
  if (way !== "qemu") {
    const workers = values.workers === undefined ? {} : { workers: Number(values.workers) };
    await lab.lab.save(guest, { channels }, { image, format: way, ...workers });
    return;
  }
  const { capabilities, parameters } = plainSettings(channels, true);
  const settings = { capabilities, parameters: { ...parameters, "max-bandwidth": 0 } };
  await migrate(guest.vm, { ...settings, uri: `file:${image}` });
  await set(guest.vm, { capabilities: { "mapped-ram": false }, parameters: { "direct-io": false } });
}

async function compare(guest: FileGuest, channels: number): Promise<ReadonlyMap<Way, Taken>> {
  const taken = new Map<Way, Taken>(WAYS.map((way) => [way, { ms: [], diskBytes: 0 }]));
  // Round 0 warms up.
  for (let round = 0; round <= rounds; round++) {
    for (const way of round % 2 === 0 ? WAYS : WAYS.toReversed()) {
      const image = lab.file(`${way}.image`);
      const startedAt = performance.now();
      await saveBy(way, guest, channels, image);
      const ms = performance.now() - startedAt;
      const result = taken.get(way) as Taken;
      if (round > 0) result.ms.push(ms);
      result.diskBytes = (await stat(image)).blocks * 512;
      await rm(image);
      // QEMU migrates a guest again only once it ran in between.
      await guest.vm.qmp.execute("cont");
      await guest.vm.qmp.execute("stop");
    }
  }
  return taken;
}

function row(...cells: readonly string[]): void {
  console.log(cells.map((cell, n) => (n === 1 ? cell.padEnd(12) : cell.padStart(12))).join(" "));
}

const binary = (await findQemus()).findLast(({ major }) => major >= 10);
if (binary === undefined) throw new Error("needs QEMU 10 or later: run npm test once, which provides one");
const lab = await FileLab.open();
try {
  const guest = await lab.source({ binary, ramBytes });
  if (values.fill === "random")
    await fillGuest(guest.ram?.path as string, ramBytes, "random", new AbortController().signal);
  if (fromFile) await memoryFrom(values.fill, guest.ram?.path as string);
  const load = loadavg()[0]?.toFixed(1);
  console.log(
    `QEMU ${binary.version}, ${values.ram} MiB of ${values.fill}, medians of ${rounds}, load ${load}; throughput and disk as ratios\n`,
  );
  row("channels", "way", "ms", "of stream", "of QEMU's", "MiB on disk", "of QEMU's");
  for (const channels of counts) {
    const taken = await compare(guest, channels);
    const of = (way: Way): number => median((taken.get(way) as Taken).ms);
    const qemuDisk = (taken.get("qemu") as Taken).diskBytes;
    for (const [way, { diskBytes }] of taken) {
      const speeds = [of("stream") / of(way), of("qemu") / of(way)].map((ratio) => ratio.toFixed(2));
      const disk = [(diskBytes / MIB).toFixed(1), (diskBytes / qemuDisk).toFixed(4)];
      row(String(channels), way, of(way).toFixed(0), ...speeds, ...disk);
    }
  }
} finally {
  await lab.close();
}
