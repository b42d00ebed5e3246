import { setTimeout as sleep } from "node:timers/promises";
import { toFailure } from "../../errors.ts";
import { QemuWatch } from "../qemu-watch.ts";
import { openMonitor, targetName, targetOption } from "../target.ts";
import { type Journal, readJournal, removeJournal } from "./journal.ts";
import { type CarriedOut, carryOut } from "./rescue.ts";

/*
 * The guardian's program, started by guardian.ts: `node guardian-main.js recover JOURNAL`, or `kill PID`. It waits for
 * the end of its stdin, which comes when the process that started it says so or is gone.
 */

/** QEMU notices within moments that a monitor's client is gone; a stuck migration takes longer. */
const PATIENCE_MS = 60_000;
const RETRY_MS = 200;
const ANSWER_MS = 5000;

async function main([duty, what = ""]: readonly string[]): Promise<void> {
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.on(signal, () => undefined);
  process.stdout.on("error", () => undefined);
  process.stderr.on("error", () => undefined);
  const qemu = duty === "kill" ? new QemuWatch(Number(what)) : null;
  process.stdout.write("ready\n");
  let words = "";
  for await (const chunk of process.stdin) words += String(chunk);
  if (words.includes("dismissed")) return;
  if (qemu === null) await recover(what);
  else if (!qemu.ended) process.kill(Number(what), "SIGKILL");
}

async function recover(path: string): Promise<void> {
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
