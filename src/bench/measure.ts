import fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { dropCached } from "../io/libc.ts";
import type { Operation } from "./choices.ts";
import { MeasuredHelper } from "./helper-process.ts";
import type { Peer, PeerShare } from "./peer.ts";
import { type Combination, optionsOf } from "./sweep.ts";
import { PageCacheWatch } from "./usage.ts";

/** What one save, restore or verification took. */
export interface Sample {
  /** What a user waits for. Save: from `migrate` to the helper's end, all on disk; else from its start to its end. */
  readonly elapsedMs: number;
  /** Of the helper's process, all threads, its start included. */
  readonly cpuSeconds: number;
  /** Of QEMU's process, for this migration; null without one. */
  readonly qemuCpuSeconds: number | null;
  readonly peakRssBytes: number;
  /** Save: from the helper's start to its event `listening`. */
  readonly listeningMs: number | null;
  /** Save: from the moment at which the peer calls the migration completed to the helper's end. */
  readonly tailMs: number | null;
  /** How far the machine's page cache grew meanwhile. */
  readonly cacheGrowthBytes: number;
  /** Of all channels together, as the helper tells it. */
  readonly bytes: number;
}

/** What one combination took in one round. */
export type Samples = Readonly<Partial<Record<Operation, Sample>>>;

export interface Bench {
  readonly peer: Peer;
  /** Path of an image that may be overwritten; removed after each round. */
  readonly image: string;
  /** Path of a socket to listen at. */
  readonly socket: string;
  readonly operations: readonly Operation[];
}

/** How long a helper may take to tell why it ended, when the peer has seen no more than its end. */
const LAST_WORDS_MS = 3000;

/**
 * Saves, and then restores and verifies what was saved, as far as these are asked for. Nothing is left when this settles.
 * Rejects with what the helper failed with, what the peer did, or the signal's reason.
 */
export async function measure(bench: Bench, combination: Combination, signal: AbortSignal): Promise<Samples> {
  const { image, operations } = bench;
  try {
    const save = await measureSave(bench, combination, signal);
    const wanted = (operation: Operation): boolean => operations.includes(operation);
    const restore = wanted("restore") ? await measureRestore(bench, combination, signal) : undefined;
    const verify = wanted("verify") ? await measureVerify(bench, combination, signal) : undefined;
    return {
      ...(wanted("save") ? { save } : {}),
      ...(restore === undefined ? {} : { restore }),
      ...(verify === undefined ? {} : { verify }),
    };
  } finally {
    fs.rmSync(image, { force: true });
  }
}

async function measureSave(
  { peer, image, socket }: Bench,
  combination: Combination,
  signal: AbortSignal,
): Promise<Sample> {
  const args = ["save", image, "--listen", `unix:${socket}`, ...optionsOf(combination)];
  return await watched(args, signal, async (helper, until) => {
    const { event, at } = await helper.waitEvent("listening");
    const share = await peer.migrate(String(event.address), combination.channels, until);
    return { share, from: at, listeningMs: at - helper.startedAt };
  });
}

async function measureRestore(
  { peer, image }: Bench,
  combination: Combination,
  signal: AbortSignal,
): Promise<Sample> {
  forget(image);
  const destination = await peer.listen(combination.channels);
  try {
    const options = ["--channels", String(combination.channels), ...readingOptions(combination)];
    const args = ["restore", image, "--connect", destination.address, ...options];
    return await watched(args, signal, async (helper) => {
      return { share: await destination.completed, from: helper.startedAt };
    });
  } finally {
    await destination.close();
  }
}

async function measureVerify(
  { image }: Bench,
  combination: Combination,
  signal: AbortSignal,
): Promise<Sample> {
  forget(image);
  return await watched(["verify", image, ...readingOptions(combination)], signal, async (helper) => {
    return { share: null, from: helper.startedAt };
  });
}

function readingOptions({ workers, directIo }: Combination): string[] {
  return ["--direct-io", directIo, ...(workers === "auto" ? [] : ["--workers", String(workers)])];
}

/** A host that restores has not just saved: what is read must come from the disk. */
function forget(image: string): void {
  const fd = fs.openSync(image, "r");
  try {
    dropCached(fd);
  } finally {
    fs.closeSync(fd);
  }
}

interface Work {
  readonly share: PeerShare | null;
  /** When what the user waits for began. */
  readonly from: number;
  readonly listeningMs?: number;
}

/** Runs the helper, and beside it what the peer does meanwhile. */
async function watched(
  args: readonly string[],
  signal: AbortSignal,
  beside: (helper: MeasuredHelper, until: AbortSignal) => Promise<Work>,
): Promise<Sample> {
  const giveUp = new AbortController();
  const until = AbortSignal.any([signal, giveUp.signal]);
  const cache = new PageCacheWatch();
  const helper = new MeasuredHelper(args, until);
  const working = beside(helper, until);
  working.catch(async (error: unknown) => {
    await Promise.race([helper.ended.catch(() => undefined), sleep(LAST_WORDS_MS, null, { ref: false })]);
    giveUp.abort(error);
  });
  try {
    // The helper's own words tell more than those of a peer that lost its connections.
    const { endedAt, usage, completed } = await helper.ended;
    const { share, from, listeningMs = null } = await working;
    return {
      elapsedMs: Math.max(endedAt, share?.completedAt ?? 0) - from,
      cpuSeconds: usage.cpuSeconds,
      qemuCpuSeconds: share?.cpuSeconds ?? null,
      peakRssBytes: usage.peakRssBytes,
      listeningMs,
      tailMs: share === null || listeningMs === null ? null : endedAt - share.completedAt,
      cacheGrowthBytes: cache.stop().cachedBytes,
      bytes: Number(completed.bytes),
    };
  } finally {
    cache.stop();
  }
}
