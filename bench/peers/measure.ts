import { loadavg } from "node:os";
import { type RoundsProgress, runRounds } from "../../src/bench/rounds.ts";
import { pickImageDirectory } from "../../src/demo/image-dir.ts";
import { pickRamDirectory } from "../../src/demo/ram-dir.ts";
import { findQemus } from "../../src/vm/find-qemu.ts";
import { compileYardstick } from "./c-program.ts";
import { newestOf } from "./guest.ts";
import type { Plan } from "./options.ts";
import { describeSetting, type Report, type Setting } from "./report.ts";
import type { Results, Sample } from "./sample.ts";
import { Stage } from "./stage.ts";

/** Headers, unused parts of extents, and what a file system needs for itself. */
const IMAGE_OVERHEAD = 1.1;

/**
 * Makes the measurements of a plan, one after the other. Room on the disk and in memory is looked for first.
 * Rejects with what a peer rejects with, or with the signal's reason when it aborts; nothing of it is left then either.
 */
export async function measure(plan: Plan, signal: AbortSignal): Promise<Report> {
  const { ramBytes, rounds, measurements } = plan;
  const { stage, setting } = await openStage(plan, signal);
  const results: Record<string, Results[string]> = {};
  const loads: Record<string, number> = {};
  try {
    for (const [number, { name, prepare }] of measurements.entries()) {
      loads[name] = loadavg()[0] as number;
      const ways = await prepare(stage);
      const onProgress = (progress: RoundsProgress): void =>
        tell(`${number + 1} of ${measurements.length}: ${name}`, progress);
      const samples = await runRounds<Sample>(ways, { rounds, signal, onProgress });
      results[name] = Object.fromEntries(samples);
      await stage.clear();
    }
  } catch (error) {
    // What fails because everything was ended is not the reason.
    throw signal.aborted ? signal.reason : error;
  } finally {
    if (process.stderr.isTTY) process.stderr.write("\r\x1b[K");
    await stage.close();
  }
  return { takenOn: new Date().toISOString().slice(0, 10), ramBytes, rounds, setting, loads, results };
}

/** Looks for room and for what is compared; the caller closes the stage. */
export async function openStage(
  plan: Plan,
  signal: AbortSignal,
): Promise<{ stage: Stage; setting: Setting }> {
  const { ramBytes } = plan;
  const binary = newestOf(await findQemus());
  const directory = await findRoom(plan);
  const setting = await describeSetting(directory, binary.version);
  const yardstick = await compileYardstick();
  return { stage: await Stage.open({ binary, ramBytes, directory, yardstick, signal }), setting };
}

/** One line: redrawn on a terminal, else one for each round. */
function tell(what: string, { round, rounds, way, done, total }: RoundsProgress): void {
  const text = round === 0 ? "warm-up" : `round ${round} of ${rounds}`;
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${what}, ${text}: ${way} (${done} of ${total})`);
  else if (done % (total / (rounds + 1)) === 0) process.stderr.write(`${what}, ${text}\n`);
}

/** A directory for the images. Guests must find room in memory: from a disk their RAM would come at the disk's speed. */
async function findRoom({ ramBytes, directory, measurements }: Plan): Promise<string> {
  const guests = ramBytes * Math.max(...measurements.map(({ guests }) => guests));
  const memory = await pickRamDirectory(guests);
  if (!memory.inMemory) {
    const gib = (guests / 2 ** 30).toFixed(1);
    throw new Error(`the guests' RAM, ${gib} GiB, fits into no tmpfs of this machine: use a smaller --ram`);
  }
  const images = IMAGE_OVERHEAD * ramBytes * Math.max(1, ...measurements.map(({ images }) => images));
  const place = await pickImageDirectory(images, { bytes: guests, inMemory: true }, directory);
  if (place.inMemory) throw new Error(`${place.directory} is no disk: name one with room by --dir`);
  return place.directory;
}
