import { availableParallelism } from "node:os";
import { Writable } from "node:stream";
import { crc32 } from "node:zlib";
import { Bench } from "tinybench";
import { EventWriter } from "../src/cli/events.ts";
import type { ProgressEvent } from "../src/control/events.ts";
import { encodeIndex } from "../src/formats/image/index.ts";
import { decodeIndex } from "../src/formats/image/index-decoder.ts";
import { MainWalker } from "../src/formats/migration/main-stream.ts";
import { MultifdWalker } from "../src/formats/migration/multifd-packet.ts";
import { ControlBlock } from "../src/pool/control-block.ts";
import { ExtentWriter } from "../src/pool/extent-writer.ts";
import type { DrainTask } from "../src/pool/messages.ts";
import { imageIndex, mainStream, multifdStream } from "./streams.ts";

/*
 * What a core of this machine does per second in the steps that every byte, or every page, goes through. The
 * slowest of them bounds what one worker can move; and what the main thread does meanwhile. Only compare figures of one
 * machine.
 */

const MIB = 2 ** 20;
/** Sockets hand over a few hundred KiB at a time at most. */
const CHUNK = 256 * 1024;

const packets = 32;
const channel = multifdStream(packets);
const pages = 65_536;
const main = mainStream(pages);
const index = imageIndex(64, 256);
const blocks = 16_384;
const lines = 256;
const indexBytes = encodeIndex(index);

const nowhere = new Writable({ write: (_line, _encoding, done) => done() });
const events = new EventWriter(nowhere);
const progress: ProgressEvent = {
  event: "progress",
  bytes: 123_456_789_012,
  bytesPerSecond: 2_345_678_901,
  elapsedMs: 52_631,
  channels: Array.from({ length: 64 }, (_, channel) => ({ channel, bytes: 1_929_012_328 + channel })),
};

interface Work {
  readonly amount: number;
  readonly unit: string;
  readonly run: () => void;
}

const WORK: Readonly<Record<string, Work>> = {
  "multifd packets of 128 pages: walk": {
    amount: packets,
    unit: "packets",
    run: () => inChunks(channel, new MultifdWalker()),
  },
  "crc32 of blocks of 1 MiB": {
    amount: channel.length / MIB,
    unit: "MiB",
    run: () => {
      for (let at = 0; at < channel.length; at += MIB) crc32(channel.subarray(at, at + MIB));
    },
  },
  "main channel: parse zero pages": {
    amount: pages,
    unit: "pages",
    run: () => inChunks(main, new MainWalker()),
  },
  "extent cursor: place blocks of 1 MiB": {
    amount: blocks,
    unit: "blocks",
    run: () => {
      const extents = new ExtentWriter(new ControlBlock(), drainTask());
      for (let block = 0; block < blocks; block++) extents.place(MIB);
    },
  },
  "event line: progress of 64 channels": {
    amount: lines,
    unit: "lines",
    run: () => {
      for (let line = 0; line < lines; line++) events.write(progress);
    },
  },
  "index of 64 channels: encode": {
    amount: indexBytes.length / MIB,
    unit: "MiB",
    run: () => void encodeIndex(index),
  },
  "index of 64 channels: decode and check": {
    amount: indexBytes.length / MIB,
    unit: "MiB",
    run: () => void decodeIndex(indexBytes),
  },
};

function inChunks(stream: Buffer, walker: MultifdWalker | MainWalker): void {
  for (let at = 0; at < stream.length; at += CHUNK) walker.push(stream.subarray(at, at + CHUNK));
  walker.finish();
}

/** Of a channel whose blocks go nowhere. */
function drainTask(): DrainTask {
  return {
    connection: 0,
    socketFd: -1,
    image: { fd: -1, base: 0, directIo: true },
    control: new SharedArrayBuffer(0),
    blockBytes: MIB,
    slots: 3,
    sparse: false,
    ownsFile: false,
    capacity: null,
    maxBytes: null,
    rate: null,
    checksum: true,
  };
}

const bench = new Bench({ name: "codecs", time: 1000, warmupTime: 200 });
for (const [name, { run }] of Object.entries(WORK)) bench.add(name, run);
await bench.run();

console.log(
  `Node ${process.version}, ${process.arch}, ${availableParallelism()} cores; each line is one core's work\n`,
);
for (const { name, result } of bench.tasks) {
  if (!("latency" in result)) throw new Error(`${name} failed: ${JSON.stringify(result)}`);
  const { amount, unit } = WORK[name] as Work;
  const { p50, rme } = result.latency;
  const rate = Math.round((amount * 1000) / p50).toLocaleString("en");
  console.log(`${name.padEnd(40)}${rate.padStart(12)} ${`${unit}/s`.padEnd(10)} ±${rme.toFixed(1)} %`);
}
