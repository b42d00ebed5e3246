import { MAIN } from "../../src/entry-points.ts";
import { untilBoth } from "./both-ends.ts";
import { multifd } from "./guest.ts";
import type { RestorePeer, SavePeer } from "./peer.ts";
import { Program } from "./program.ts";

/** As a manager has it, and never through the page cache unnoticed. */
const COMMON = ["--json", "--direct-io", "on", "--die-with-parent"];
/** Of the event that tells that connections succeed. */
export const LISTENING = '"event":"listening"';

export interface HelperSetup {
  readonly channels: number;
  readonly format?: "stream" | "mapped-ram";
  readonly checksum?: "crc32" | "none";
  /** The helper's own choice if absent. */
  readonly workers?: number;
  /** What distinguishes it, where that is not the format alone. */
  readonly name?: string;
}

/** The command line as managers use it, a process of its own: every process begins with the start of Node.js. */
export function helper(setup: HelperSetup): SavePeer & RestorePeer {
  const { channels, format = "stream", checksum = "crc32" } = setup;
  const workers = setup.workers === undefined ? [] : ["--workers", String(setup.workers)];
  return {
    name: setup.name ?? `helper, ${format}`,
    save: async (guest, file, { socket, signal }) => {
      const place = socket("save");
      const options = [
        "--format",
        format,
        "--checksum",
        checksum,
        "--channels",
        String(channels),
        ...workers,
      ];
      const program = startHelper(["save", file, "--listen", `unix:${place}`, ...options], signal);
      await Promise.all([program.said(LISTENING), guest.set(multifd(channels))]);
      const since = performance.now();
      return untilBoth(program, guest.migrate(`unix:${place}`), since);
    },
    restore: async (guest, file, { socket, signal }) => {
      const place = socket("restore");
      await guest.set(multifd(channels));
      const { completed } = await guest.incoming(`unix:${place}`);
      const options =
        format === "stream" ? workers : ["--channels", String(channels), "--zeroed-ram", ...workers];
      const program = startHelper(["restore", file, "--connect", `unix:${place}`, ...options], signal);
      return untilBoth(program, completed, program.startedAt);
    },
  };
}

/** Starts the built command line. */
export function startHelper(args: readonly string[], signal: AbortSignal): Program {
  return new Program(process.execPath, [MAIN, ...args, ...COMMON], { signal });
}
