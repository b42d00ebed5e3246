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

const MIB = 2 ** 20;
const RAM = 64 * MIB;
/** So that the background alone takes about a second. */
const RATE = 40 * MIB;

export type TrialKind = "paused" | "running";

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
   * @param kills how long after the guest was let run, or went on, each source is killed, in milliseconds
   * @returns how many of them were: the last ones may have been done before
   */
  async try(kind: TrialKind, kills: readonly number[]): Promise<{ killed: number }> {
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

  async #restore(guest: Guest, image: string, kind: TrialKind, kills: readonly number[]): Promise<number> {
    const common = { image, workers: 1, backgroundRate: RATE };
    let connect = await listenForPostcopy(guest.vm);
    for (const [killed, afterMs] of kills.entries()) {
      const source = new InstantProcess({ ...common, connect, resume: killed > 0 });
      await source.running;
      if (kind === "running" && killed === 0) await guest.vm.qmp.execute("cont");
      await sleep(afterMs);
      await source.kill();
      if (source.events.at(-1)?.event === "completed") return killed;
      expect(source.events.map(({ event }) => event)).toContain("running");
      connect = await listenAgain(guest.vm, killed);
    }
    const last = new InstantProcess({ ...common, connect, resume: true, backgroundRate: "auto" });
    expect(await last.last()).toMatchObject({ event: "completed" });
    return kills.length;
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
