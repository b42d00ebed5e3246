import { rmSync } from "node:fs";
import { resolve } from "node:path";
import { inheritedFd } from "../../io/image-target/file-kind.ts";
import { privateDirectory } from "../../io/private-directory.ts";
import type { VmSession } from "../session.ts";
import type { Settings } from "../settings.ts";
import { absolute } from "../target.ts";
import { Guardian } from "./guardian.ts";
import { type Journal, journalPath, removeJournal, type Then, writeJournal } from "./journal.ts";
import { refuseStaleJournal } from "./stale-journal.ts";

export interface GuardedSave {
  readonly image: string;
  readonly offset: number;
  readonly afterwards: Then;
  /** Settings as they are to be again. */
  readonly settings: Settings;
  readonly overlays: Journal["overlays"];
}

export interface Guarded {
  /** For sockets and the like; gone at the end, whoever ends it. */
  readonly directory: string;
  /** To be called when the image is safe: from then on a killed save is carried on instead of undone. */
  published(): void;
  /** The VM could not be put right from here: the guardian is to try, and the journal stays for `recover`. */
  leaveToGuardian(): void;
}

/**
 * Works on a VM under the eyes of a guardian process, which puts the VM right if this process is killed meanwhile.
 * @throws MultifdError VM_STATE (somebody else works on it), IO, INTERNAL, and what `work` throws
 */
export async function guarded<T>(
  { target, monitor, survey }: VmSession,
  { image, offset, afterwards, settings, overlays }: GuardedSave,
  work: (guarded: Guarded) => Promise<T>,
): Promise<T> {
  refuseStaleJournal(target, monitor.pid);
  const directory = privateDirectory("save");
  const journal: Journal = {
    version: 1,
    target: absolute(target),
    pid: process.pid,
    qemuPid: monitor.pid,
    running: survey.running,
    settings,
    phase: "saving",
    afterwards,
    image: inheritedFd(image) === null ? resolve(image) : image,
    offset,
    startedMs: Date.now(),
    overlays: overlays.map(({ overlay }) => ({ overlay })),
    directory,
  };
  const path = journalPath(target);
  writeJournal(path, journal);
  let guardian: Guardian | null = null;
  let settled = true;
  try {
    guardian = await Guardian.start(["recover", path]);
    return await work({
      directory,
      published: () => writeJournal(path, { ...journal, phase: "published" }),
      leaveToGuardian: () => {
        settled = false;
      },
    });
  } finally {
    rmSync(directory, { recursive: true, force: true });
    if (settled) {
      removeJournal(path);
      await guardian?.dismiss();
    } else {
      guardian?.release();
    }
  }
}
