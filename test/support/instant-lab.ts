import { Buffer } from "node:buffer";
import { open, writeFile } from "node:fs/promises";
import { afterEach, expect } from "vitest";
import type { InstantOptions } from "../../src/control/instant/options.ts";
import { type CompletedEvent, type MultifdError, restoreInstant } from "../../src/index.ts";
import { isImmutable, setImmutable } from "../../src/io/libc.ts";
import { failureOf } from "./expect-failure.ts";
import type { MappedBlockSpec } from "./mapped-file.ts";
import { type DestinationOptions, PostcopyDestination } from "./postcopy-destination.ts";
import { useScratch } from "./scratch.ts";
import { type SealedMapped, sealedMapped } from "./sealed-mapped.ts";

const PAGE = 4096;

/** A page that tells where it is from. */
export function contentOf(block: string, page: number): Buffer {
  return Buffer.alloc(PAGE, `page ${page} of ${block}; `);
}

/** A block of `pages` pages, of which the image holds these. */
export function blockWith(name: string, pages: number, held: readonly number[]): MappedBlockSpec {
  return {
    ...{ name, bytes: pages * PAGE },
    pages: Object.fromEntries(held.map((page) => [page, contentOf(name, page)])),
  };
}

export function range(from: number, to: number, step = 1): number[] {
  return Array.from({ length: Math.ceil((to - from) / step) }, (_, n) => from + n * step);
}

/** A run under way. Its failure is seen by whoever asks for it. */
export interface InstantTrial {
  readonly destination: PostcopyDestination;
  readonly image: string;
  readonly completed: () => Promise<CompletedEvent>;
  readonly failure: () => Promise<MultifdError | null>;
}

export interface InstantLab {
  /** The image that every restore gets a copy of from now on. */
  save(blocks: readonly MappedBlockSpec[]): Promise<SealedMapped>;
  start(destination?: DestinationOptions, options?: Partial<InstantOptions>): Promise<InstantTrial>;
}

/** Instant restores of small images into destinations of a test's own; all is gone when a test ends. */
export function useInstantLab(): InstantLab {
  const scratch = useScratch();
  const cleanUps: (() => Promise<unknown>)[] = [];
  let content: Buffer = Buffer.alloc(0);
  let trials = 0;
  afterEach(async () => {
    await Promise.all(cleanUps.splice(0).map((cleanUp) => cleanUp()));
  });
  return {
    async save(blocks) {
      const sealed = sealedMapped(blocks);
      content = sealed.bytes;
      return sealed;
    },
    async start(behaviour = {}, options = {}) {
      const number = trials++;
      const image = scratch.file(`image-${number}`);
      await writeFile(image, content);
      const destination = await PostcopyDestination.listen(scratch.file(`socket-${number}`), behaviour);
      const abort = new AbortController();
      const run = restoreInstant({
        ...{ image, connect: destination.address, workers: 1, signal: abort.signal },
        // No image of these was resumed before.
        force: options.resume === true,
        ...options,
      });
      const ended = failureOf(run);
      cleanUps.push(async () => {
        abort.abort();
        await ended;
        await destination.close();
        await withImage(image, () => undefined);
      });
      return { destination, image, completed: () => run, failure: () => ended };
    },
  };
}

/** Changes an image, also one that was made immutable because a guest depends on it. */
export async function withImage(image: string, change: (fd: number) => void): Promise<void> {
  const reader = await open(image);
  try {
    if (isImmutable(reader.fd)) setImmutable(reader.fd, false);
  } finally {
    await reader.close();
  }
  const file = await open(image, "r+");
  try {
    change(file.fd);
  } finally {
    await file.close();
  }
}

/** Each page of these blocks has come once, and nothing else; zero pages need not. */
export function expectWhole(destination: PostcopyDestination, blocks: readonly MappedBlockSpec[]): void {
  expect(destination.problem).toBeNull();
  const wanted = blocks.flatMap(({ name, pages }) => Object.keys(pages).map((page) => `${name}:${page}`));
  expect(wanted.filter((page) => !destination.pages.has(page))).toEqual([]);
  expect(wrongPages(destination, blocks)).toEqual([]);
}

/** Pages that came and are not the image's. */
export function wrongPages(destination: PostcopyDestination, blocks: readonly MappedBlockSpec[]): string[] {
  const zero = Buffer.alloc(PAGE);
  return [...destination.pages].flatMap(([place, bytes]) => {
    const [name, page] = place.split(":") as [string, string];
    const held = blocks.find((block) => block.name === name)?.pages[Number(page)];
    const wanted = held === undefined ? zero : Buffer.alloc(PAGE, held);
    return (bytes ?? zero).equals(wanted) ? [] : [place];
  });
}
