import { rm } from "node:fs/promises";
import { afterEach, expect } from "vitest";
import { largeMigration, tinyMigration } from "./fake-peer.ts";
import { peakOf } from "./peak-memory.ts";
import { type ListeningSave, useSaves } from "./save-under-test.ts";
import type { Scratch } from "./scratch.ts";

export const ALLOWANCE_MIB = 64;
/** Giving up waits until QEMU has connected all its channels, 3 s at most; the rest is a busy machine's. */
const PROMPT_MS = 8000;

/** A save whose memory is watched. */
export interface Watched extends ListeningSave {
  /** MiB, at its end. */
  readonly peak: Promise<number>;
}

/** How a save must end: soon after `since`, in one clear sentence, with no more memory than an ordinary one. */
export interface Ending {
  readonly code: string;
  readonly status?: number;
  readonly words: RegExp;
  readonly details?: object;
  readonly channels?: number;
  readonly bytes?: number;
  readonly withinMs?: number;
}

export interface HostileSaves {
  readonly scratch: Scratch;
  save(...args: readonly string[]): Promise<Watched>;
  /** What a save of so many channels and so many bytes needs that nothing is wrong with, in MiB. */
  ordinary(channels: number, bytes?: number): Promise<number>;
  expectFailure(run: Watched, ending: Ending, since?: number): Promise<void>;
}

/** Saves that must fail for what their peer does, and leave nothing: no image, no temporary file, no socket. */
export function useHostileSaves(): HostileSaves {
  const { scratch, listening } = useSaves();
  const peaks = new Map<number, Promise<number>>();
  afterEach(async () => {
    expect(await scratch.names()).toEqual([]);
  });

  async function save(...args: readonly string[]): Promise<Watched> {
    const started = await listening(scratch.file("vm.mfd"), ["--workers", "2", ...args]);
    return { ...started, peak: peakOf(started.helper) };
  }

  function ordinary(channels: number, bytes = 0): Promise<number> {
    const shape = channels * 2 ** 32 + bytes;
    const known = peaks.get(shape) ?? measured(channels, bytes);
    peaks.set(shape, known);
    return known;
  }

  async function measured(channels: number, bytes: number): Promise<number> {
    const image = scratch.file("ordinary.mfd");
    const { helper, peer } = await listening(image, ["--workers", "2"]);
    const peak = peakOf(helper);
    const streams = bytes > 0 ? largeMigration(channels, bytes) : tinyMigration(channels, { style: "10" });
    await peer.play(streams);
    await helper.success();
    await rm(image);
    return peak;
  }

  async function expectFailure(
    { helper, peak }: Watched,
    ending: Ending,
    since = performance.now(),
  ): Promise<void> {
    const { code, status = 3, words, details = {}, channels = 2, bytes, withinMs = PROMPT_MS } = ending;
    const failure = await helper.failure();
    expect(failure).toMatchObject({ status, code, message: expect.stringMatching(words), details });
    expect(performance.now() - since).toBeLessThan(withinMs);
    expect(
      (await peak) - (await ordinary(channels, bytes)),
      "MiB above an ordinary save",
    ).toBeLessThanOrEqual(ALLOWANCE_MIB);
  }

  return { scratch, save, ordinary, expectFailure };
}
