import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { type Random, seededRandom } from "../support/random.ts";
import { TARGETS } from "./codec-targets.ts";
import { type Corpus, readCorpus } from "./corpus.ts";
import { ImageTarget } from "./image-target.ts";
import { mutate } from "./mutate.ts";
import { PlaceTarget } from "./place-target.ts";

const MIB = 2 ** 20;

export interface FuzzPlan {
  readonly seed: number;
  /** Mutated streams, indexes, metadata, superblocks, vmdescriptions, mapped-ram files and their trailers, answers of a postcopy destination. */
  readonly inputs: number;
  /** Bits flipped in image files, one at a time. */
  readonly flips: number;
  /** Image files changed with all checksums made to fit again. */
  readonly forgeries: number;
  /** Hostile migrations, sent to the code that places them. */
  readonly migrations: number;
}

export interface FuzzReport {
  readonly seed: number;
  /** For each target: inputs tried, and how many of them were taken for good. */
  readonly tried: Readonly<Record<string, { readonly inputs: number; readonly taken: number }>>;
  readonly slowestMs: number;
  readonly grownMib: number;
  readonly elapsedMs: number;
}

/** In this ratio: the walkers read what comes from outside first. */
const CODECS = [
  ...["stream", "stream", "stream", "stream", "index", "index", "metadata", "superblock"],
  ...["vmdescription", "vmdescription", "mapped", "mapped", "map", "footer", "libvirt", "answers"],
] as readonly Exclude<keyof Corpus, "image">[];

/** @throws whatever a target finds wrong, with the input as `cause` */
export async function fuzz(plan: FuzzPlan): Promise<FuzzReport> {
  const started = performance.now();
  const corpus = readCorpus();
  const random = seededRandom(plan.seed);
  const tried = new Map<string, { inputs: number; taken: number }>();
  const count = (target: string, taken: boolean): void => {
    const counts = tried.get(target) ?? { inputs: 0, taken: 0 };
    counts.inputs += 1;
    if (taken) counts.taken += 1;
    tried.set(target, counts);
  };
  const before = process.memoryUsage().rss;
  let slowestMs = 0;
  for (let input = 0; input < plan.inputs; input++) {
    const kind = CODECS[input % CODECS.length] as (typeof CODECS)[number];
    const start = performance.now();
    count(kind, tryCodec(random, corpus, kind));
    slowestMs = Math.max(slowestMs, performance.now() - start);
  }
  await inFolder((folder) => fuzzImages(folder, random, corpus, plan, count));
  await inFolder((folder) => fuzzPlacing(folder, plan, count));
  return {
    seed: plan.seed,
    tried: Object.fromEntries(tried),
    slowestMs: Math.round(slowestMs),
    grownMib: Math.round((process.memoryUsage().rss - before) / MIB),
    elapsedMs: Math.round(performance.now() - started),
  };
}

function tryCodec(random: Random, corpus: Corpus, kind: (typeof CODECS)[number]): boolean {
  const originals = corpus[kind];
  const input = mutate(random, random.pick(originals), originals);
  const copy = Buffer.from(input);
  try {
    return TARGETS[kind](input, random, originals);
  } catch (error) {
    const packed = gzipSync(copy).toString("base64");
    throw new Error(`a defect shows with this ${kind}, gzipped: ${packed}`, { cause: error });
  }
}

async function inFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "mfd-fuzz-"));
  try {
    await work(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

type Count = (target: string, taken: boolean) => void;

async function fuzzImages(
  folder: string,
  random: Random,
  corpus: Corpus,
  plan: FuzzPlan,
  count: Count,
): Promise<void> {
  const images = corpus.image.map((bytes, n) => new ImageTarget(join(folder, `${n}.mfd`), bytes));
  for (const image of images) await image.prepare();
  const checksummed = images.filter((image) => image.checksummed);
  for (let flip = 0; flip < plan.flips; flip++) {
    await random.pick(checksummed).flip(random);
    count("flipped image", false);
  }
  for (let forgery = 0; forgery < plan.forgeries; forgery++) {
    count("forged image", await random.pick(images).forge(random));
  }
}

async function fuzzPlacing(folder: string, plan: FuzzPlan, count: Count): Promise<void> {
  const target = new PlaceTarget(folder);
  await target.open();
  try {
    for (let n = 0; n < plan.migrations; n++)
      count("placed migration", await target.try((plan.seed + n) >>> 0));
  } finally {
    target.close();
  }
}
