import type { FaultSpec } from "./fault-spec.ts";
import type { Random } from "./random.ts";
import type { Victim } from "./save-points.ts";

export type RestorePhase = "opened" | "connecting" | "feeding" | "tail" | "delivered" | "random time";

export interface RestorePoint {
  readonly phase: RestorePhase;
  readonly victim: Victim;
  /** At an exact call, or so long after the last channel has connected. */
  readonly hit: { readonly fault: FaultSpec } | { readonly afterMs: number };
}

type Place = Pick<FaultSpec, "thread" | "call" | "nth" | "when">;

const EXACT = ["opened", "connecting", "feeding", "tail", "delivered"] as const;
const ENDS_OF_WORKERS = ["throw", "exit", "exhaust"] as const;
/** Reads of main before it connects: superblock, index, metadata, and the first block of each channel. */
const EARLY_READS = 7;

function placeOf(phase: RestorePhase, connections: number, random: Random): Place {
  const when = random.pick(["before", "after"] as const);
  switch (phase) {
    case "opened":
      return { thread: "main", call: "read", nth: 1 + random.integer(EARLY_READS), when };
    case "connecting":
      return { thread: "main", call: "connect", nth: 1 + random.integer(connections), when };
    case "feeding":
      return { thread: "worker", call: random.pick(["read", "send"]), nth: 1 + random.integer(8), when };
    case "tail":
      return random.pick([
        { thread: "worker", call: "addDelivered", nth: 1 + random.integer(2), when },
        { thread: "worker", call: "setTailSent", nth: 1, when },
      ] as const);
    case "delivered":
      return { thread: "main", call: "setFinished", nth: 1, when };
    case "random time":
      throw new Error("a random time has no exact place");
  }
}

/** Where and how to hit: every named step as often as asked, for helper and QEMU, then workers, then random moments. */
export function restorePoints(
  random: Random,
  shape: { readonly connections: number; readonly lengthMs: number },
  counts: { readonly perPhase: number; readonly workers: number; readonly random: number },
): RestorePoint[] {
  const points: RestorePoint[] = [];
  for (const victim of ["helper", "qemu"] as const) {
    for (let i = 0; i < counts.perPhase; i++) {
      for (const phase of EXACT) {
        const act = victim === "qemu" ? "kill-peer" : "kill";
        points.push({ phase, victim, hit: { fault: { ...placeOf(phase, shape.connections, random), act } } });
      }
    }
  }
  for (let i = 0; i < counts.workers; i++) {
    const phase = random.pick(["feeding", "feeding", "tail"] as const);
    const act = ENDS_OF_WORKERS[i % ENDS_OF_WORKERS.length] as FaultSpec["act"];
    points.push({
      phase,
      victim: "worker",
      hit: { fault: { ...placeOf(phase, shape.connections, random), act } },
    });
  }
  for (let i = 0; i < counts.random; i++) {
    const victim = i % 4 === 3 ? "qemu" : "helper";
    points.push({ phase: "random time", victim, hit: { afterMs: random.integer(shape.lengthMs) } });
  }
  return points;
}
