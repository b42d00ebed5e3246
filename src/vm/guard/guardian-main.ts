import { rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { toFailure } from "../../errors.ts";
import { QemuWatch } from "../qemu-watch.ts";
import { isUnderWay, migrationStatus, runState } from "../survey.ts";
import { openMonitor, targetName, targetOption } from "../target.ts";
import { WORDS } from "./guardian.ts";
import { type Journal, readJournal, removeJournal } from "./journal.ts";
import { type CarriedOut, carryOut, removeLeftovers } from "./rescue.ts";

/*
 * The guardian's program, started by guardian.ts: `node guardian-main.js recover JOURNAL`, or `kill PID DIRECTORY`. It
 * waits for the end of its stdin, which comes when the process that started it says so or is gone.
 */

/** QEMU notices within moments that a monitor's client is gone; a stuck migration takes longer. */
const PATIENCE_MS = 60_000;
const RETRY_MS = 200;
const ANSWER_MS = 5000;

/** RunStates of a restored VM that was never let run (qapi/run-state.json, QEMU 7.2 to 10). */
const NEVER_RAN: readonly string[] = ["inmigrate", "paused", "prelaunch"];

async function main([duty, what = "", directory = ""]: readonly string[]): Promise<void> {
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.on(signal, () => undefined);
  process.stdout.on("error", () => undefined);
  process.stderr.on("error", () => undefined);
  // From the start: once QEMU has ended, its number tells nothing.
  const qemu = new QemuWatch(duty === "kill" ? Number(what) : (readJournal(what)?.qemuPid ?? null));
  process.stdout.write("ready\n");
  let words = "";
  for await (const chunk of process.stdin) words += String(chunk);
  if (words.includes(WORDS.left)) return;
  const dismissed = words.includes(WORDS.dismissed);
  if (duty === "recover") {
    if (!dismissed) await recover(qemu, what);
  } else if (dismissed) rmSync(directory, { recursive: true, force: true });
  else await endQemu(qemu, Number(what), directory, words.includes(WORDS.letRun));
}

/** A QEMU whose VM may have been let run is asked: one that runs, or whose RAM is on its way, is nobody's to end. */
async function endQemu(qemu: QemuWatch, pid: number, directory: string, askFirst: boolean): Promise<void> {
  const found = askFirst ? await lookAt(qemu, directory) : NOT_LET_RUN;
  if (found !== null && !found.loading && NEVER_RAN.includes(found.state)) {
    if (!qemu.ended) process.kill(pid, "SIGKILL");
  } else if (!qemu.ended) {
    const state = found?.state ?? "does not answer";
    const rest = found?.loading
      ? `; it goes on getting its RAM, and should it stop: restore IMAGE --resume --qmp ${monitorIn(directory)}`
      : "";
    tell(`the VM of QEMU process ${pid} is restored, and ${state}: it is left alone${rest}`);
    // Through its monitor somebody can go on.
    if (found?.loading ?? true) return;
  }
  rmSync(directory, { recursive: true, force: true });
}

interface Found {
  /** RunState. */
  readonly state: string;
  /** The VM was let go (it may be paused all the same), and its RAM follows: an instant restore. */
  readonly loading: boolean;
}

const NOT_LET_RUN: Found = { state: "paused", loading: false };

const monitorIn = (directory: string): string => join(directory, "qmp");

/** Waits for what another process is about to make of a VM that waits for it. null: QEMU has ended or does not answer. */
async function lookAt(qemu: QemuWatch, directory: string): Promise<Found | null> {
  const deadline = Date.now() + PATIENCE_MS;
  let found: Found | null = null;
  while (!qemu.ended && Date.now() < deadline) {
    const answer = await ask(directory).catch(() => null);
    found = answer === null ? found : { ...answer, loading: answer.loading && answer.state !== "inmigrate" };
    if (answer !== null && !(answer.loading && answer.state === "inmigrate")) return found;
    await sleep(RETRY_MS);
  }
  return found;
}

async function ask(directory: string): Promise<Found> {
  const monitor = await openMonitor({ qmp: monitorIn(directory) }, ANSWER_MS);
  try {
    const { status: state } = await runState(monitor);
    return { state, loading: isUnderWay(await migrationStatus(monitor)) };
  } finally {
    await monitor.close();
  }
}

async function recover(qemu: QemuWatch, path: string): Promise<void> {
  const journal = readJournal(path);
  if (journal === null) return; // all was done; only the word did not come through
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    try {
      const { state, overlays } = await putRight(journal);
      removeJournal(path);
      const disks =
        overlays.length === 0 ? "" : `; its disks go on in ${overlays.join(", ")}: keep what is below`;
      tell(`the VM at ${targetName(journal.target)} is ${state}${disks}`);
      return;
    } catch (error) {
      if (qemu.ended) {
        removeLeftovers(journal);
        removeJournal(path);
        return;
      }
      if (Date.now() > deadline) {
        const { message } = toFailure(error);
        tell(
          `could not put the VM right: ${message}; try multifd-helper recover ${targetOption(journal.target)}`,
        );
        process.exitCode = 1;
        return;
      }
      await sleep(RETRY_MS);
    }
  }
}

async function putRight(journal: Journal): Promise<CarriedOut> {
  const monitor = await openMonitor(journal.target, ANSWER_MS);
  try {
    return await carryOut(monitor, journal);
  } finally {
    await monitor.close();
  }
}

function tell(what: string): void {
  process.stderr.write(`multifd-helper: the process that worked on a VM ended without finishing; ${what}\n`);
}

await main(process.argv.slice(2));
