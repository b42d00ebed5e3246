import { writeFile } from "node:fs/promises";
import net from "node:net";
import { afterEach, beforeEach, expect } from "vitest";
import { exampleImage } from "./example-image.ts";
import { useHelpers } from "./helper-process.ts";
import { type Cost, costOf } from "./peak-memory.ts";
import { type Scratch, useScratch } from "./scratch.ts";

/** JSON of 4 MiB comes to 68 MiB of objects at worst, and V8 collects when it likes. */
const ALLOWANCE_MIB = 80;
/** Of processor time; a helper that waits instead is found by its patience. */
const LONGEST_MS = 10_000;
const COMMANDS = ["inspect", "verify", "restore"] as const;
type Command = (typeof COMMANDS)[number];

interface Outcome extends Cost {
  readonly status: string | number;
  readonly code: string | undefined;
  readonly message: string;
}

/** How an image is refused: by every command in the same way, unless `inspect`, which reads no data, has nothing to say. */
export interface Refusal {
  readonly code: string;
  readonly status?: number;
  readonly words?: RegExp;
  readonly inspectable?: boolean;
}

export interface Refusals {
  readonly scratch: Scratch;
  /** Address of a destination that takes everything. */
  readonly destination: () => string;
  /** How often somebody connected to it in this test. */
  readonly connections: () => number;
  /** inspect, verify and restore refuse the file, each in a process of its own, soon and without much memory. */
  expectRefused(file: string, refusal: Refusal): Promise<void>;
}

export function useRefusals(): Refusals {
  const scratch = useScratch();
  const start = useHelpers();

  let listener: net.Server;
  let connections: number;
  beforeEach(async () => {
    connections = 0;
    listener = net.createServer((socket) => {
      connections += 1;
      socket.on("error", () => undefined).resume();
    });
    await new Promise<void>((resolve) => listener.listen(scratch.file("destination"), resolve));
  });
  afterEach(() => {
    listener.close();
  });

  async function run(command: Command, file: string): Promise<Outcome> {
    const connect = command === "restore" ? ["--connect", destination()] : [];
    const workers = command === "inspect" ? [] : ["--workers", "2"];
    const helper = start([command, file, ...connect, ...workers, "--json"], {
      answers: command === "inspect",
    });
    const cost = await costOf(helper);
    const status = await helper.exit();
    if (status === 0) return { status, code: undefined, message: "", ...cost };
    const { code, message } = await helper.failure();
    return { status, code, message, ...cost };
  }

  let baseline: Promise<Record<Command, number>> | undefined;

  /** What each command needs for an image of a few kilobytes that nothing is wrong with but its last byte of data. */
  async function ordinary(): Promise<Record<Command, number>> {
    const file = scratch.file("ordinary");
    const { bytes } = exampleImage();
    bytes.writeUInt8(1, 0x5500);
    await writeFile(file, bytes);
    const peaks: [Command, number][] = [];
    for (const command of COMMANDS) peaks.push([command, (await run(command, file)).peakMib]);
    return Object.fromEntries(peaks) as Record<Command, number>;
  }

  async function expectRefused(file: string, refusal: Refusal): Promise<void> {
    const { code, status = 4, words = /./, inspectable = false } = refusal;
    baseline ??= ordinary();
    const usual = await baseline;
    connections = 0;
    for (const command of COMMANDS) {
      const outcome = await run(command, file);
      const fine = command === "inspect" && inspectable;
      expect(outcome, command).toMatchObject(
        fine ? { status: 0 } : { status, code, message: expect.stringMatching(words) },
      );
      expect(outcome.cpuMs, `${command}: time`).toBeLessThan(LONGEST_MS);
      expect(outcome.peakMib - usual[command], `${command}: MiB above ordinary`).toBeLessThanOrEqual(
        ALLOWANCE_MIB,
      );
    }
    expect(connections).toBe(0);
  }

  const destination = (): string => `unix:${scratch.file("destination")}`;
  return { scratch, destination, connections: () => connections, expectRefused };
}
