import { rm, stat } from "node:fs/promises";
import type { Way } from "../../src/bench/rounds.ts";
import { cProgram } from "./c-program.ts";
import { execCat } from "./exec-cat.ts";
import { type FioMemory, fio } from "./fio.ts";
import type { BenchGuest } from "./guest.ts";
import { helper, LISTENING, startHelper } from "./helper.ts";
import type { RestorePeer, SavePeer } from "./peer.ts";
import { Program } from "./program.ts";
import { qemuFile } from "./qemu-file.ts";
import { qemuMappedRam } from "./qemu-mapped-ram.ts";
import type { Sample } from "./sample.ts";
import type { Stage } from "./stage.ts";

/** Ways that are compared with each other in the same rounds. */
export interface Measurement {
  readonly name: string;
  /** Images that lie on the disk at a time, in guests of the usual RAM. */
  readonly images: number;
  /** Guests that live at a time, in usual RAMs. */
  readonly guests: number;
  /** Makes what all runs need; images that it leaves are removed with the stage. */
  readonly prepare: (stage: Stage) => Promise<readonly Way<Sample>[]>;
}

export const SAVED_OVER = [1, 2, 4, 8] as const;
export const RESTORED_OVER = [1, 2, 4, 8, 16] as const;
/** The guests whose saves tell how memory grows, in usual RAMs. */
export const SMALL = 0.5;
export const LARGE = 4;
const MEMORIES: readonly FioMemory[] = ["4 KiB pages", "huge pages"];

/** Names of ways that targets and charts ask for, besides those of the peers. */
export const WAYS = {
  stream: "helper, stream",
  mapped: "helper, mapped-ram",
  direct: "QEMU mapped-ram, direct-io",
  buffered: "QEMU mapped-ram, buffered",
  execCat: "exec:cat",
  file: "QEMU file:",
  unchecked: "helper, no checksums",
  c: "C program",
  cChecked: "C program, crc32",
  fio: "fio, 4 KiB pages",
  fioHuge: "fio, huge pages",
  four: "4 channels",
  many: "64 channels",
  verify: "helper verify",
  node: "node -e 0",
  start: "helper listening",
} as const;

export const MEASUREMENTS: readonly Measurement[] = [
  ...SAVED_OVER.map((channels) =>
    saving(`save-${channels}`, () => [...parallel(channels), ...(channels === 4 ? [execCat, qemuFile] : [])]),
  ),
  saving("c-program", ({ options: { yardstick } }) => [
    helper({ channels: 4 }),
    cProgram(yardstick, 4, "crc32"),
    helper({ channels: 4, checksum: "none", name: WAYS.unchecked }),
    cProgram(yardstick, 4, "none"),
  ]),
  saving("save-64", () => [
    helper({ channels: 4, workers: 2, name: WAYS.four }),
    helper({ channels: 64, workers: 2, name: WAYS.many }),
  ]),
  { name: "limit", images: 1, guests: 1, prepare: writing },
  ...RESTORED_OVER.map((channels) => {
    const others = channels === 4 ? [qemuMappedRam(4, false), execCat, qemuFile] : [];
    return restoring(`restore-${channels}`, [...parallel(channels).slice(0, 3), ...others]);
  }),
  { name: "verify", images: 1, guests: 1, prepare: verifying },
  { name: "memory", images: LARGE, guests: 1 + SMALL + LARGE, prepare: growing },
  { name: "start", images: 0, guests: 0, prepare: starting },
];

function parallel(channels: number): (SavePeer & RestorePeer)[] {
  return [
    helper({ channels }),
    helper({ channels, format: "mapped-ram" }),
    qemuMappedRam(channels, true),
    qemuMappedRam(channels, false),
  ];
}

function saving(name: string, peers: (stage: Stage) => readonly SavePeer[]): Measurement {
  const prepare: Measurement["prepare"] = async (stage) => {
    const guest = await stage.guest();
    return peers(stage).map((peer) => ({ name: peer.name, run: () => savedOnce(stage, peer, guest) }));
  };
  return { name, images: 1, guests: 1, prepare };
}

async function savedOnce(stage: Stage, peer: SavePeer, guest: BenchGuest): Promise<Sample> {
  const file = stage.file("saved");
  try {
    return await stage.save(peer, guest, file);
  } finally {
    await rm(file, { force: true });
  }
}

function restoring(name: string, peers: readonly (SavePeer & RestorePeer)[]): Measurement {
  const prepare: Measurement["prepare"] = async (stage) => {
    const guest = await stage.guest();
    const ways: Way<Sample>[] = [];
    for (const [number, peer] of peers.entries()) {
      const file = stage.file(`image-${number}`);
      await stage.save(peer, guest, file);
      ways.push({ name: peer.name, run: () => stage.restore(peer, file) });
    }
    return ways;
  };
  return { name, images: peers.length, guests: 2, prepare };
}

/** A save beside what the disk can do at all. */
async function writing(stage: Stage): Promise<Way<Sample>[]> {
  const guest = await stage.guest();
  const peer = helper({ channels: 4 });
  return [
    { name: peer.name, run: () => savedOnce(stage, peer, guest) },
    ...MEMORIES.map((memory) => ({
      name: `fio, ${memory}`,
      run: async () => {
        const file = stage.file("written");
        const sample = await fio({ rw: "write", file, bytes: guest.ram.bytes, memory, signal: stage.signal });
        await rm(file);
        return sample;
      },
    })),
  ];
}

/** Both read the same file. */
async function verifying(stage: Stage): Promise<Way<Sample>[]> {
  const file = stage.file("image-0");
  await stage.save(helper({ channels: 4 }), await stage.guest(), file);
  const { size: bytes } = await stat(file);
  const { signal } = stage;
  return [
    { name: WAYS.verify, run: async () => whole(startHelper(["verify", file], signal)) },
    ...MEMORIES.map((memory) => ({
      name: `fio, ${memory}`,
      run: () => fio({ rw: "read", file, bytes, memory, signal }),
    })),
  ];
}

export function growthWay(format: "stream" | "mapped-ram", size: "small" | "large"): string {
  return `${format}, ${size} guest`;
}

/** The peak RSS of saves of a small and of a large guest. */
async function growing(stage: Stage): Promise<Way<Sample>[]> {
  const { ramBytes } = stage.options;
  const guests = { small: await stage.source(ramBytes * SMALL), large: await stage.source(ramBytes * LARGE) };
  return (["stream", "mapped-ram"] as const).flatMap((format) =>
    (["small", "large"] as const).map((size) => ({
      name: growthWay(format, size),
      run: () => savedOnce(stage, helper({ channels: 4, format }), guests[size]),
    })),
  );
}

/** How long a manager waits before it can tell QEMU to migrate, beside the least that Node.js needs. */
async function starting({ socket, file, signal }: Stage): Promise<Way<Sample>[]> {
  return [
    { name: WAYS.node, run: async () => whole(new Program(process.execPath, ["-e", "0"], { signal })) },
    {
      name: WAYS.start,
      run: async () => {
        const program = startHelper(["save", file("never"), "--listen", `unix:${socket("start")}`], signal);
        const ms = (await program.said(LISTENING)) - program.startedAt;
        await program.stop();
        return { ms };
      },
    },
  ];
}

async function whole(program: Program): Promise<Sample> {
  const { endedAt, cpuSeconds, peakRssBytes } = await program.ended;
  return { ms: endedAt - program.startedAt, cpuSeconds, peakRssBytes };
}
