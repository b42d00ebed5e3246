import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "vitest";
import { inspect, restore, type SaveOptions, verify } from "../../src/index.ts";
import type { QemuBinary } from "../../src/vm/find-qemu.ts";
import { migrateTo, waitMigration } from "../../src/vm/migration.ts";
import { withFault } from "./fault-spec.ts";
import type { HelperOptions, HelperProcess, SeenEvent, StartHelper } from "./helper-process.ts";
import { configure, type Guest, type Lab } from "./lab.ts";
import type { SavePoint } from "./save-points.ts";

const MIB = 2 ** 20;
export const TRIAL_RAM: number = 64 * MIB;
export const TRIAL_CHANNELS = 4;
const PATIENCE_MS = 15_000;
const LONELY_S = 2;

/** Where a trial's saves go to and come from. */
export interface TrialPlace {
  /** A path, or a block device. */
  readonly image: string;
  /** stream if absent. */
  readonly format?: SaveOptions["format"];
  /** A listening socket that the test holds as a manager does; without it the helper listens itself. */
  readonly managersSocket?: { readonly path: string; readonly fd: number };
}

export interface SaveVerdict {
  /** What is at the image's place after the blow. */
  readonly image: "old" | "new" | "unsealed";
  /** The documented exception: this QEMU can never migrate again. */
  readonly yankException: boolean;
}

/** Saves of one guest, over and over, of which each is hit at one point and then done again. */
export class SaveTrials {
  readonly #binary: QemuBinary;
  readonly #lab: Lab;
  readonly #start: StartHelper;
  readonly #place: TrialPlace;
  #guest: Guest | null = null;
  #old: Buffer = Buffer.alloc(0);
  #oldUuid = "";

  constructor(binary: QemuBinary, lab: Lab, start: StartHelper, place: TrialPlace) {
    this.#binary = binary;
    this.#lab = lab;
    this.#start = start;
    this.#place = place;
  }

  get #inPlace(): boolean {
    return this.#place.image.startsWith("/dev/");
  }

  get #partial(): string {
    const { image } = this.#place;
    return path.join(path.dirname(image), `.${path.basename(image)}.multifd-partial`);
  }

  /** Makes the image that all trials are held against. @returns how long that took, in milliseconds */
  async prepare(): Promise<number> {
    return await this.#saveWell(await this.#liveGuest());
  }

  /** Hits a save at a point, looks at what is left, and does it again. */
  async try(point: SavePoint): Promise<SaveVerdict> {
    try {
      return await this.#try(point);
    } catch (error) {
      // The next trial begins with a guest that nothing has happened to.
      await this.#guest?.vm.kill();
      this.#guest = null;
      throw error;
    }
  }

  async #try(point: SavePoint): Promise<SaveVerdict> {
    const guest = await this.#liveGuest();
    const ended = await this.#hit(guest, point);
    const image = await this.#judgeImage();
    this.#expectHonest(point, ended, image);
    await this.#judgeLeftover(ended);
    if (point.victim === "qemu") {
      await guest.vm.kill();
      this.#guest = null;
    } else if (this.#place.managersSocket === undefined) {
      await this.#expectRunsOn(guest);
    }
    const yankException = await this.#retry(point);
    return { image, yankException };
  }

  /** Starts a save, deals the blow, and waits for the helper's end: a status or "SIGKILL". */
  async #hit(guest: Guest, { phase, hit, victim }: SavePoint): Promise<HelperProcess> {
    const options = "fault" in hit ? withFault({ ...hit.fault, pid: guest.vm.pid }) : {};
    // A QEMU that dies before its first byte looks like somebody who never came.
    const patience = victim === "qemu" ? ["--connect-timeout", `${LONELY_S}`] : [];
    const helper = this.#helper(options, patience);
    await helper.waitEvent("listening").catch((error: unknown) => this.#unlessDead(helper, error));
    const blow = async (): Promise<unknown> => (victim === "qemu" ? guest.vm.kill() : helper.kill());
    if (phase === "listening" && "afterMs" in hit) {
      await sleep(hit.afterMs);
      await blow();
    }
    await this.#migrate(guest).catch((error: unknown) => {
      // Killed already, or nobody listens any more.
      if (phase !== "listening" && !String(error).includes("QEMU ended")) throw error;
    });
    if (phase !== "listening" && "afterMs" in hit) {
      await sleep(hit.afterMs);
      await blow();
    }
    await helper.exit();
    return helper;
  }

  #unlessDead(helper: HelperProcess, error: unknown): void {
    if (helper.killed) return;
    throw error;
  }

  /** A save that ended by itself must have said what the disk says. */
  #expectHonest(point: SavePoint, helper: HelperProcess, image: SaveVerdict["image"]): void {
    const last = helper.events.at(-1);
    if (helper.killed) return;
    const told = JSON.stringify(last);
    if (last?.event === "completed") expect(image, told).toBe("new");
    else {
      expect(last?.event, told).toBe("failed");
      expect(image, told).toBe(this.#inPlace && image !== "old" ? "unsealed" : "old");
      if (point.victim === "worker") expect(last?.code, told).toBe("WORKER_DIED");
    }
  }

  /** The image is the old one to the byte, or a new one that verifies, or (in place) no image. */
  async #judgeImage(): Promise<SaveVerdict["image"]> {
    const { image } = this.#place;
    const now = await readFile(image);
    if (now.subarray(0, this.#old.length).equals(this.#old)) return "old";
    const found = await inspect({ image }).catch((error: { code?: string }) => error.code);
    if (this.#inPlace && !(typeof found === "object" && found.sealed)) {
      await expectNoImage(image, now);
      return "unsealed";
    }
    const { sealed, imageUuid } = found as Exclude<typeof found, string | undefined>;
    expect(sealed).toBe(true);
    expect(imageUuid).not.toBe(this.#oldUuid);
    expect(await verify({ image, workers: 1 })).toMatchObject({ checked: "checksums and structure" });
    return "new";
  }

  /** Only a killed helper leaves its temporary file; unless it was whole already, nobody restores it. */
  async #judgeLeftover(helper: HelperProcess): Promise<void> {
    if (this.#inPlace || !existsSync(this.#partial)) return;
    expect(helper.killed, "a helper that ended by itself left its temporary file").toBe(true);
    const found = await inspect({ image: this.#partial }).catch((error: { code?: string }) => error.code);
    if (typeof found === "object" && found.sealed) {
      expect(await verify({ image: this.#partial, workers: 1 })).toMatchObject({
        checked: "checksums and structure",
      });
      return;
    }
    await expectNoImage(this.#partial, await readFile(this.#partial));
  }

  /** The source VM is there, its migration is over, and its guest runs. */
  async #expectRunsOn(guest: Guest): Promise<void> {
    await untilOver(guest);
    await guest.vm.qmp.execute("cont");
    expect(await guest.vm.qmp.execute("query-status")).toMatchObject({ status: "running" });
    await guest.vm.qmp.execute("stop");
  }

  /** The next save succeeds and cleans up. @returns whether this QEMU had to be given up for the known reason */
  async #retry(point: SavePoint): Promise<boolean> {
    let yankException = false;
    try {
      await this.#saveWell(await this.#liveGuest());
    } catch (error) {
      const known = this.#place.managersSocket === undefined;
      if (!known || !String(error).includes("duplicate yank instance")) throw error;
      expect(["connecting", "random time"], "duplicate yank instance").toContain(point.phase);
      yankException = true;
      await this.#guest?.vm.kill();
      this.#guest = null;
      await this.#saveWell(await this.#liveGuest());
    }
    if (!this.#inPlace) expect(existsSync(this.#partial)).toBe(false);
    return yankException;
  }

  async #saveWell(guest: Guest): Promise<number> {
    const managers = this.#place.managersSocket !== undefined;
    const helper = this.#helper({}, managers ? ["--discard-backlog"] : []);
    await helper.waitEvent("listening");
    // What the manager's socket still held is closed by now, so that a QEMU that waited for it is free again.
    if (managers && guest === this.#guest) await this.#expectRunsOn(guest);
    const started = performance.now();
    let completed: SeenEvent;
    try {
      await this.#migrate(guest);
      [completed] = await Promise.all([helper.success(), waitMigration(guest.vm.qmp, PATIENCE_MS)]);
    } catch (error) {
      await helper.kill();
      throw error;
    }
    const elapsed = performance.now() - started;
    await this.#expectRunsOn(guest);
    const { image } = this.#place;
    expect(await verify({ image, workers: 1 })).toMatchObject({ checked: "checksums and structure" });
    const { uuid, bytes } = completed.image as { uuid: string; bytes: number };
    this.#oldUuid = uuid;
    this.#old = (await readFile(image)).subarray(0, this.#inPlace ? bytes : undefined);
    return elapsed;
  }

  #helper(options: HelperOptions, extra: readonly string[] = []): HelperProcess {
    const { image, format = "stream", managersSocket } = this.#place;
    const listen = managersSocket === undefined ? `unix:${this.#lab.file("s")}` : "fd:3";
    const fds = managersSocket === undefined ? [] : [managersSocket.fd];
    const args = ["save", image, "--format", format, "--json", "--listen", listen];
    return this.#start([...args, "--channels", `${TRIAL_CHANNELS}`, ...extra], { ...options, fds });
  }

  async #migrate(guest: Guest): Promise<void> {
    await configure(guest.vm, { channels: TRIAL_CHANNELS });
    await migrateTo(guest.vm.qmp, `unix:${this.#place.managersSocket?.path ?? this.#lab.file("s")}`);
  }

  async #liveGuest(): Promise<Guest> {
    this.#guest ??= await this.#lab.source({ binary: this.#binary, ramBytes: TRIAL_RAM });
    return this.#guest;
  }
}

/** Neither we nor QEMU take what is there for an image. */
async function expectNoImage(image: string, bytes: Buffer): Promise<void> {
  // IMAGE_DAMAGED is a superblock of which only a part was written.
  const refusals = /^(NOT_SEALED|NOT_AN_IMAGE|IMAGE_DAMAGED)$/;
  const run = restore({ image, connect: "unix:/nonexistent" });
  await expect(run).rejects.toMatchObject({ code: expect.stringMatching(refusals) });
  expect(bytes.toString("latin1", 0, 4), "QEMU would take it").not.toBe("QEVM");
}

async function untilOver(guest: Guest): Promise<void> {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const { status } = (await guest.vm.qmp.execute("query-migrate")) as { status?: string };
    if (status === undefined || ["completed", "failed", "cancelled"].includes(status)) return;
    if (Date.now() > deadline) throw new Error(`the migration is still ${status} after ${PATIENCE_MS} ms`);
    await sleep(20);
  }
}
