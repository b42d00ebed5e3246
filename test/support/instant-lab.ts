import { Buffer } from "node:buffer";
import { open, writeFile } from "node:fs/promises";
import { afterEach, expect } from "vitest";
import type { InstantOptions } from "../../src/control/instant/options.ts";
import { type CompletedEvent, type MultifdError, restoreInstant } from "../../src/index.ts";
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
  readonly completed: () => Promise<CompletedEvent>;
  readonly failure: () => Promise<MultifdError | null>;
}

export interface InstantLab {
  readonly file: (name: string) => string;
  /** Writes an image with these blocks, which all restores read from then on. */
  save(blocks: readonly MappedBlockSpec[]): Promise<SealedMapped>;
  /** Changes bytes of the image. */
  overwrite(offset: number, bytes: Uint8Array): Promise<void>;
  start(destination?: DestinationOptions, options?: Partial<InstantOptions>): Promise<InstantTrial>;
}

/** Instant restores of small images into a destination of the test's own; all is gone when a test ends. */
export function useInstantLab(): InstantLab {
  const scratch = useScratch();
  const cleanUps: (() => Promise<unknown>)[] = [];
  let sockets = 0;
  afterEach(async () => {
    await Promise.all(cleanUps.splice(0).map((cleanUp) => cleanUp()));
  });
  const image = (): string => scratch.file("image");
  return {
    file: scratch.file,
    async save(blocks) {
      const sealed = sealedMapped(blocks);
      await writeFile(image(), sealed.bytes);
      return sealed;
    },
    async overwrite(offset, bytes) {
      const file = await open(image(), "r+");
      await file.write(bytes, 0, bytes.length, offset);
      await file.close();
    },
    async start(behaviour = {}, options = {}) {
      const destination = await PostcopyDestination.listen(scratch.file(`socket-${sockets++}`), behaviour);
      const abort = new AbortController();
      const run = restoreInstant({
        ...{ image: image(), connect: destination.address, workers: 1, signal: abort.signal },
        ...options,
      });
      const ended = failureOf(run);
      cleanUps.push(async () => {
        abort.abort();
        await ended;
        await destination.close();
      });
      return { destination, completed: () => run, failure: () => ended };
    },
  };
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
