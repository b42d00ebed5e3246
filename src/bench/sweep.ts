/** One way to use the helper. */
export interface Combination {
  readonly channels: number;
  /** auto: what the helper takes when nothing is said. */
  readonly workers: number | "auto";
  readonly directIo: "on" | "off";
  readonly format: "stream" | "mapped-ram";
  readonly checksum: "crc32" | "none";
}

/** What is tried: every combination of these. */
export type Sweep = { readonly [Option in keyof Combination]: readonly Combination[Option][] };

/** A combination that makes no sense, or cannot be here, and why. */
export interface LeftOut {
  readonly combination: string;
  readonly reason: string;
}

/** What is tried when nothing is said. */
export const DEFAULT_SWEEP: Omit<Sweep, "directIo"> = {
  channels: [1, 2, 4, 8],
  workers: ["auto"],
  format: ["stream", "mapped-ram"],
  checksum: ["crc32"],
};

/**
 * All combinations, without those that cannot be.
 * @param directIoWorks whether the file system takes O_DIRECT
 */
export function combinationsOf(
  sweep: Sweep,
  directIoWorks: boolean,
): { readonly combinations: readonly Combination[]; readonly leftOut: readonly LeftOut[] } {
  const combinations: Combination[] = [];
  const leftOut = new Map<string, LeftOut>();
  for (const combination of everyOne(sweep)) {
    const found = obstacle(combination, directIoWorks);
    if (found === null) combinations.push(combination);
    else leftOut.set(found.combination, found);
  }
  return { combinations, leftOut: [...leftOut.values()] };
}

/** As options of the command line; options that need not be said are left out. */
export function optionsOf(combination: Combination): string[] {
  const { channels, workers, directIo, format, checksum } = combination;
  return [
    ...["--channels", String(channels)],
    ...(workers === "auto" ? [] : ["--workers", String(workers)]),
    ...["--direct-io", directIo, "--format", format, "--checksum", checksum],
  ];
}

/** What tells two combinations of a sweep apart, in few words: "4 channels, mapped-ram". Channels come always if there are any. */
export function nameOf(combination: Combination, sweep: Sweep): string {
  const { channels, workers, directIo, format, checksum } = combination;
  const words: readonly (readonly [boolean, string])[] = [
    [sweep.channels.length > 0, counted(channels, "channel")],
    [sweep.workers.length > 1, workers === "auto" ? "auto workers" : counted(workers, "worker")],
    [sweep.format.length > 1, format],
    [sweep.directIo.length > 1, directIo === "on" ? "O_DIRECT" : "page cache"],
    [sweep.checksum.length > 1, checksum],
  ];
  return words.flatMap(([varies, word]) => (varies ? [word] : [])).join(", ");
}

function counted(count: number, what: string): string {
  return count === 1 ? `1 ${what}` : `${count} ${what}s`;
}

function* everyOne(sweep: Sweep): Generator<Combination, void, undefined> {
  for (const directIo of sweep.directIo) {
    for (const checksum of sweep.checksum) {
      for (const format of sweep.format) {
        for (const channels of sweep.channels) {
          for (const workers of sweep.workers) yield { channels, workers, directIo, format, checksum };
        }
      }
    }
  }
}

function obstacle({ channels, workers, directIo }: Combination, directIoWorks: boolean): LeftOut | null {
  if (directIo === "on" && !directIoWorks) {
    return { combination: "--direct-io on", reason: "the file system refuses O_DIRECT" };
  }
  if (workers !== "auto" && workers > channels + 1) {
    return {
      combination: `--channels ${channels} --workers ${workers}`,
      reason: `there are ${channels + 1} connections, main's included, and a worker without one does nothing`,
    };
  }
  return null;
}
