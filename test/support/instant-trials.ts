import { copyFile, rm } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "vitest";
import { compareFiles } from "../../src/demo/ram-pattern.ts";
import type { QemuBinary } from "../../src/vm/find-qemu.ts";
import { waitMigration } from "../../src/vm/migration.ts";
import { checkDirtyRam } from "./dirty-ram.ts";
import {
  type CheckingGuest,
  checkingGuest,
  listenAgain,
  listenForPostcopy,
  saveWalking,
  untilPass,
  wrongPagesOf,
} from "./instant-guests.ts";
import { withImage } from "./instant-lab.ts";
import { InstantProcess } from "./instant-process.ts";
import type { Guest, GuestSetup, Lab } from "./lab.ts";
import type { Random } from "./random.ts";

const MIB = 2 ** 20;
const RAM = 64 * MIB;
/** So that the background alone takes about a second. */
const RATE = 40 * MIB;

export type TrialKind = "paused" | "running";

/** When a source is killed: so long after it has connected, or after the guest was let run or goes on. */
export interface Kill {
  readonly since: "channel" | "running";
  readonly ms: number;
}

/**
 * The first kill comes when the guest runs: before, QEMU just ends. A QEMU before 8.2 does not live through a recovery that
 * breaks off before it is resumed: it goes on with the connection that it has closed (postcopy_pause_incoming of 7.2.22,
 * migration/savevm.c, which knows of the state postcopy-active alone), and ends by SIGSEGV.
 */
export function randomKills(random: Random, count: number, { major }: QemuBinary): Kill[] {
  return Array.from({ length: count }, (_, number) => {
    const early = major > 8 && number > 0 && random.integer(3) === 0;
    return early
      ? { since: "channel", ms: random.integer(10) }
      : { since: "running", ms: random.integer(300) };
  });
}

export function nameOfKills(kills: readonly Kill[]): string {
  return kills.map(({ since, ms }) => `${ms} ms after ${since}`).join(", ");
}

/** Instant restores whose source is killed again and again, and each time another one goes on. */
export class InstantTrials {
  readonly #lab: Lab;
  readonly #binary: QemuBinary;
  #checking: CheckingGuest | null = null;
  #pass = 0;

  constructor(lab: Lab, binary: QemuBinary) {
    this.#lab = lab;
    this.#binary = binary;
  }

  async prepare(): Promise<void> {
    const source = await this.#lab.source(this.#setup("paused"));
    await this.#lab.save(source, { channels: 2 }, { image: this.#image("paused"), format: "mapped-ram" });
    await copyFile(source.ram?.path as string, this.#lab.file("ram"));
    await source.vm.quit();
    this.#checking = await checkingGuest(this.#lab, this.#binary, RAM);
    this.#pass = await saveWalking(this.#lab, this.#checking, this.#image("running"));
  }

  /**
   * @param kills of one source after the other
   * @returns how many of them were: the last ones may have been done before
   */
  async try(kind: TrialKind, kills: readonly Kill[]): Promise<{ killed: number }> {
    const image = this.#lab.file("image");
    await copyFile(this.#image(kind), image);
    const guest = await this.#lab.waiting(this.#setup(kind));
    try {
      const killed = await this.#restore(guest, image, kind, kills);
      await waitMigration(guest.vm.qmp, 60_000);
      await (kind === "paused" ? this.#expectSame(guest) : this.#expectSound(guest));
      return { killed };
    } finally {
      await guest.vm.kill();
      // A source that was killed leaves it immutable.
      await withImage(image, () => undefined);
      await rm(image);
    }
  }

  /** @returns how many sources were killed before one was done */
  async #restore(guest: Guest, image: string, kind: TrialKind, kills: readonly Kill[]): Promise<number> {
    let connect: string | null = await listenForPostcopy(guest.vm);
    let killed = 0;
    for (; connect !== null; killed++) {
      const kill = kills[killed];
      const backgroundRate = kill === undefined ? "auto" : RATE;
      const source = new InstantProcess({ image, workers: 1, backgroundRate, connect, resume: killed > 0 });
      if (killed === 0) await source.until("running");
      if (kind === "running" && killed === 0) await guest.vm.qmp.execute("cont");
      if (kill !== undefined) {
        await source.until(kill.since);
        await sleep(kill.ms);
        await source.kill();
      }
      const last = await source.last();
      if (last?.event === "completed") return killed;
      expect(kill === undefined || last?.event === "failed", JSON.stringify(last)).toBe(false);
      connect = await listenAgain(guest.vm, killed);
    }
    return killed;
  }

  async #expectSame({ ram }: Guest): Promise<void> {
    const { differing } = await compareFiles(this.#lab.file("ram"), ram?.path as string);
    expect(differing).toBe(0);
  }

  /** It has seen all of its RAM, and found nothing wrong. */
  async #expectSound(guest: Guest): Promise<void> {
    const { walked } = this.#checking as CheckingGuest;
    await untilPass(guest, walked, this.#pass + 3);
    await guest.vm.qmp.execute("stop");
    expect(await wrongPagesOf(guest)).toBe(0);
    expect(await checkDirtyRam(guest.ram?.path as string, walked)).toMatchObject({ violations: 0 });
  }

  #setup(kind: TrialKind): GuestSetup {
    const paused: GuestSetup = { binary: this.#binary, ramBytes: RAM };
    return kind === "paused" ? paused : (this.#checking as CheckingGuest).setup;
  }

  #image(kind: TrialKind): string {
    return this.#lab.file(`${kind}.image`);
  }
}
