import type { SaveOptions } from "../../src/index.ts";
import type { FaultSpec } from "./fault-spec.ts";
import type { Random } from "./random.ts";

export type SavePhase =
  | "listening"
  | "connecting"
  | "data"
  | "index"
  | "between syncs"
  | "rename"
  | "random time";

/** Who is hit: the helper or QEMU by SIGKILL, or one worker thread. */
export type Victim = "helper" | "qemu" | "worker";

export interface SavePoint {
  readonly phase: SavePhase;
  readonly victim: Victim;
  /** At an exact call, or so long after `listening` (that phase) or after QEMU's `migrate` (all others). */
  readonly hit: { readonly fault: FaultSpec } | { readonly afterMs: number };
}

type Place = Pick<FaultSpec, "thread" | "call" | "nth" | "when" | "with">;

export interface SaveShape {
  readonly format: NonNullable<SaveOptions["format"]>;
  /** multifd channels and main. */
  readonly connections: number;
  /** Writes of main before its first superblock: a path is tried out with one, a device is not. */
  readonly probes: 0 | 1;
  /** About what an undisturbed save takes from `migrate` to its end. */
  readonly lengthMs: number;
}

function main(call: FaultSpec["call"], nth: number, when: FaultSpec["when"]): Place {
  return { thread: "main", call, nth, when };
}

/** The named places of a save's life, in its order. */
function placesOf(phase: SavePhase, shape: SaveShape, random: Random): Place {
  const { connections, probes, format } = shape;
  const when = random.pick(["before", "after"] as const);
  if (format === "mapped-ram" && (phase === "index" || phase === "between syncs")) {
    return random.pick(mappedPlaces(phase, probes).map((place) => ({ ...place, when })));
  }
  switch (phase) {
    case "connecting":
      return main("accept", 1 + random.integer(connections), when);
    case "data":
      return { thread: "worker", call: "write", nth: 1 + random.integer(8), when };
    // Flushes: 1 the superblock that says writing, 2 the data, 3 the index, 4 the seal.
    case "index":
      return random.pick([
        main("fdatasync", 2, "before"),
        main("fdatasync", 2, "after"),
        main("write", probes + 2, "before"),
        main("write", probes + 2, "after"),
      ]);
    case "between syncs":
      return random.pick([
        main("fdatasync", 3, "before"),
        main("fdatasync", 3, "after"),
        main("write", probes + 3, "before"),
        main("write", probes + 3, "after"),
        main("fdatasync", 4, "before"),
      ]);
    case "rename":
      if (probes === 0) return main("fdatasync", 4, when);
      return random.pick([
        main("fdatasync", 4, "after"),
        main("renameSync", 1, "before"),
        main("renameSync", 1, "after"),
        main("fsyncSync", 1, "after"),
      ]);
    default:
      throw new Error(`${phase} has no exact places`);
  }
}

// How an aligned buffer reads as text: the first bytes of a mapped-ram file, and of its footer.
const QEMU_MAGIC = "81,69,86,77,0,0,0,3";
const FOOTER_MAGIC = "77,70,68,77,83,69,65,76";

/** Flushes of this format: 1 no old image, 2 all but the footer, 3 the footer, 4 QEMU's magic. */
function mappedPlaces(phase: "index" | "between syncs", probes: 0 | 1): Omit<Place, "when">[] {
  const inPlace = probes === 0;
  // A device is marked with two writes before, the second of them a footer.
  const first = inPlace ? 2 : 1;
  const at = { thread: "main", call: "write" } as const;
  if (phase === "index") {
    const heads = [1, 2, 4, 7].map((nth) => ({ ...at, nth: first + nth }));
    return [...heads, { thread: "main", call: "fdatasync", nth: 2 }];
  }
  return [
    { ...at, with: FOOTER_MAGIC, nth: inPlace ? 2 : 1 },
    { thread: "main", call: "fdatasync", nth: 3 },
    { ...at, with: QEMU_MAGIC, nth: 1 },
  ];
}

const EXACT = ["connecting", "data", "index", "between syncs", "rename"] as const;
const ENDS_OF_WORKERS = ["throw", "exit", "exhaust"] as const;

/** Where and how to hit: every named phase as often as asked, for helper and QEMU, then workers, then random moments. */
export function savePoints(
  random: Random,
  shape: SaveShape,
  counts: { readonly perPhase: number; readonly workers: number; readonly random: number },
): SavePoint[] {
  const points: SavePoint[] = [];
  for (const victim of ["helper", "qemu"] as const) {
    for (let i = 0; i < counts.perPhase; i++) {
      points.push({ phase: "listening", victim, hit: { afterMs: random.integer(40) } });
      for (const phase of EXACT) {
        const place = placesOf(phase, shape, random);
        const tears = victim === "helper" && place.call === "write" && random.integer(3) === 0;
        const act = victim === "qemu" ? "kill-peer" : tears ? "tear" : "kill";
        points.push({ phase, victim, hit: { fault: { ...place, act } } });
      }
    }
  }
  for (let i = 0; i < counts.workers; i++) {
    const act = ENDS_OF_WORKERS[i % ENDS_OF_WORKERS.length] as FaultSpec["act"];
    const place: Place =
      random.integer(4) === 0
        ? { thread: "worker", call: "take", nth: 1 + random.integer(2), when: "before" }
        : placesOf("data", shape, random);
    points.push({ phase: "data", victim: "worker", hit: { fault: { ...place, act } } });
  }
  for (let i = 0; i < counts.random; i++) {
    const victim = random.pick(["helper", "helper", "qemu"] as const);
    points.push({ phase: "random time", victim, hit: { afterMs: random.integer(shape.lengthMs) } });
  }
  return points;
}

export function nameOfPoint({
  phase,
  victim,
  hit,
}: Pick<SavePoint, "victim" | "hit"> & { phase: string }): string {
  if ("afterMs" in hit) return `${phase}: ${victim} after ${hit.afterMs} ms`;
  const { thread, call, nth, when, act } = hit.fault;
  return `${phase}: ${victim}, ${act} ${when} ${thread} ${call} ${nth}`;
}
