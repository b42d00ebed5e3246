import type { Spread } from "../../src/bench/statistics.ts";
import {
  cost,
  type Field,
  type Figure,
  inMib,
  rssGrowth,
  rssGrowthPerGib,
  speedUp,
  speedUpOnFio,
  tailShare,
} from "./figures.ts";
import { WAYS } from "./measurements.ts";
import type { Report } from "./report.ts";
import { channelWords } from "./words.ts";

/** One thing that this project wants to reach. */
export interface Target {
  readonly name: string;
  readonly what: string;
  /** The measurement that the figure is computed from. */
  readonly measurement: string;
  readonly figure: Figure;
  readonly unit: "×" | "MiB" | "MiB per GiB" | "%";
  /** What the figure's median is held against; null: it is only told. */
  readonly bound: Bound | null;
}

export type Bound = { readonly atLeast: number } | { readonly atMost: number };

export interface Verdict {
  readonly target: Target;
  readonly figure: Spread;
  /** null where there is no bound. */
  readonly holds: boolean | null;
}

/** What peak RSS differs by from one run of the same save to the next. */
const RSS_NOISE_MIB = 4;
const AGAINST = "against QEMU mapped-ram + multifd + direct-io";
const { stream, mapped, direct } = WAYS;

export const TARGETS: readonly Target[] = [
  fast("save-vs-direct-io", `save, 4 channels, ${AGAINST}`, "save-4", [stream, direct], 1.3),
  fast("save-vs-exec-cat", "save, 4 channels, against `exec:cat`", "save-4", [stream, WAYS.execCat], 2),
  fast(
    "save-vs-file",
    "save, 4 channels, against QEMU `file:`, one stream",
    "save-4",
    [stream, WAYS.file],
    2,
  ),
  fast(
    "save-vs-c",
    "save without checksums, against the C program",
    "c-program",
    [WAYS.unchecked, WAYS.c],
    0.97,
  ),
  fast(
    "save-vs-c-crc32",
    "save, against the C program with checksums",
    "c-program",
    [stream, WAYS.cChecked],
    0.95,
  ),
  {
    name: "save-vs-fio",
    what: "save, 4 channels, against fio's sequential `O_DIRECT` write (goal: 0.85)",
    measurement: "limit",
    figure: speedUpOnFio("limit", stream),
    unit: "×",
    bound: null,
  },
  fast("save-1-channel", `save, 1 channel, ${AGAINST}`, "save-1", [stream, direct], 1.2),
  fast(
    "save-64-channels",
    "save, 64 channels on 2 workers, against 4",
    "save-64",
    [WAYS.many, WAYS.four],
    0.85,
  ),
  fast("save-mapped-ram", `save, mapped-ram, 4 channels, ${AGAINST}`, "save-4", [mapped, direct], 1.2),
  ...[1, 2, 4].flatMap((channels) => restored(channels, 1.2)),
  ...restored(16, 0.95),
  {
    name: "verify-vs-fio",
    what: "verify, against fio's sequential `O_DIRECT` read, the better of 4 KiB and huge pages",
    measurement: "verify",
    figure: speedUpOnFio("verify", WAYS.verify),
    unit: "×",
    bound: { atLeast: 0.8 },
  },
  cheap(
    "cpu-vs-c",
    "CPU seconds of a save without checksums, against the C program",
    [WAYS.unchecked, WAYS.c],
    1.2,
  ),
  cheap(
    "cpu-vs-c-crc32",
    "CPU seconds of a save, against the C program with checksums",
    [stream, WAYS.cChecked],
    1.5,
  ),
  ...inEachRun("cache", "growth of Cached + Dirty during a", ({ cacheGrowthBytes }) => cacheGrowthBytes, 32),
  ...inEachRun("rss", "peak RSS of a", ({ peakRssBytes }) => peakRssBytes, 120),
  {
    name: "rss-growth-stream",
    what: `growth of a save's peak RSS with an 8 times larger guest: none, which is within ${RSS_NOISE_MIB} MiB`,
    measurement: "memory",
    figure: rssGrowth("stream"),
    unit: "MiB",
    bound: { atMost: RSS_NOISE_MIB },
  },
  {
    name: "rss-growth-mapped-ram",
    what: "the same in mapped-ram format, for each GiB of guest",
    measurement: "memory",
    figure: rssGrowthPerGib("mapped-ram"),
    unit: "MiB per GiB",
    bound: { atMost: 2 },
  },
  {
    name: "start",
    what: "time to `listening`, against `node -e 0`",
    measurement: "start",
    figure: cost("start", WAYS.start, WAYS.node, ({ ms }) => ms),
    unit: "×",
    bound: { atMost: 1.4 },
  },
  tail("stream", stream),
  tail("mapped-ram", mapped),
];

/** Holds a report against targets whose measurements it has. */
export function judge(report: Report, targets: readonly Target[] = TARGETS): Verdict[] {
  return targets.map((target) => {
    const figure = target.figure(report);
    return { target, figure, holds: holds(figure.median, target.bound) };
  });
}

function holds(value: number, bound: Bound | null): boolean | null {
  if (bound === null) return null;
  return "atLeast" in bound ? value >= bound.atLeast : value <= bound.atMost;
}

type Pair = readonly [way: string, base: string];

function fast(name: string, what: string, measurement: string, [way, base]: Pair, atLeast: number): Target {
  return { name, what, measurement, figure: speedUp(measurement, way, base), unit: "×", bound: { atLeast } };
}

function cheap(name: string, what: string, [way, base]: Pair, atMost: number): Target {
  const figure = cost("c-program", way, base, ({ cpuSeconds }) => cpuSeconds);
  return { name, what, measurement: "c-program", figure, unit: "×", bound: { atMost } };
}

function restored(channels: number, atLeast: number): Target[] {
  const against = (format: string, way: string): Target =>
    fast(
      `restore-${format}-${channels}`,
      `restore, ${format}, ${channelWords(channels)}, ${AGAINST}`,
      `restore-${channels}`,
      [way, direct],
      atLeast,
    );
  return [against("stream", stream), against("mapped-ram", mapped)];
}

/** The same bound for saves and restores in both formats, over 4 channels. */
function inEachRun(name: string, what: string, field: Field, atMost: number): Target[] {
  return ["save", "restore"].flatMap((run) =>
    (
      [
        ["stream", stream],
        ["mapped-ram", mapped],
      ] as const
    ).map(([format, way]) => ({
      name: `${name}-${run}-${format}`,
      what: `${what} ${run}, ${format}, 4 channels`,
      measurement: `${run}-4`,
      figure: inMib(`${run}-4`, way, field),
      unit: "MiB" as const,
      bound: { atMost },
    })),
  );
}

function tail(format: string, way: string): Target {
  return {
    name: `tail-${format}`,
    what: `from QEMU's \`completed\` to the helper's end, of a save, ${format}, 4 channels`,
    measurement: "save-4",
    figure: tailShare("save-4", way),
    unit: "%",
    bound: { atMost: 5 },
  };
}
