import { createHash } from "node:crypto";
import { copyFile, readFile, stat } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "vitest";
import { compareFiles } from "../../src/demo/ram-pattern.ts";
import type { QemuBinary } from "../../src/vm/find-qemu.ts";
import { listenForMigration, waitMigration } from "../../src/vm/migration.ts";
import { pickAccelerator } from "./accelerator.ts";
import { withFault } from "./fault-spec.ts";
import type { HelperProcess, StartHelper } from "./helper-process.ts";
import { Monitor } from "./incoming.ts";
import { type Channels, configure, type Guest, type Lab } from "./lab.ts";
import { saveLiveGuest } from "./live-image.ts";
import type { RestorePoint } from "./restore-points.ts";
import type { Vms, VmWithRam } from "./vms.ts";

const MIB = 2 ** 20;
const RAM = 64 * MIB;
const CHANNELS: Channels = { channels: 4 };
const END_MS = 5000;
/** Where QEMU may as well wait on for the rest of its channels. */
const MAY_WAIT: readonly string[] = ["opened", "connecting"];
const MAY_WAIT_MS = 1000;
const PATIENCE_MS = 20_000;
/** What a restore is stretched to where it is hit at a random time. */
export const STRETCHED_MS: number = 1000;

export type ImageKind = "paused" | "live" | "compressed";

interface TrialImage {
  readonly path: string;
  readonly channels: Channels;
  readonly digest: string;
  /** A copy of the RAM that must come back; null where the guest ran while it was saved. */
  readonly ram: string | null;
}

interface Incoming extends VmWithRam {
  readonly address: string;
  readonly monitor: Monitor;
}

export interface RestoreVerdict {
  /** QEMU ended by itself with an error, completed the load, was killed by the trial, or waits for (more) connections. */
  readonly qemu: "ended" | "completed" | "killed" | "waiting";
}

/** Restores of saved guests, each hit at one point and then done again. */
export class RestoreTrials {
  readonly #binary: QemuBinary;
  readonly #lab: Lab;
  readonly #start: StartHelper;
  readonly #vms: Vms;
  readonly #images = new Map<ImageKind, TrialImage>();

  constructor(binary: QemuBinary, lab: Lab, start: StartHelper, vms: Vms) {
    this.#binary = binary;
    this.#lab = lab;
    this.#start = start;
    this.#vms = vms;
  }

  /** Saves the guests. What `vms` starts meanwhile may be gone afterwards. */
  async prepare(): Promise<void> {
    const binary = this.#binary;
    const source = await this.#lab.source({ binary, ramBytes: RAM });
    for (const [kind, channels] of [
      ["paused", CHANNELS],
      ["compressed", { ...CHANNELS, compression: "zlib" }],
    ] as const) {
      await this.#lab.save(source, channels, { image: this.#lab.file(kind) });
      await this.#remember(kind, channels, source);
      // QEMU 10 migrates again only after the guest went on.
      await source.vm.qmp.execute("cont");
      await source.vm.qmp.execute("stop");
    }
    await saveLiveGuest(this.#vms, {
      binary,
      ramBytes: RAM,
      channels: CHANNELS,
      rounds: 3,
      image: this.#lab.file("live"),
    });
    await this.#remember("live", CHANNELS, null);
  }

  async try(point: RestorePoint, kind: ImageKind): Promise<RestoreVerdict> {
    const image = this.#image(kind);
    const incoming = await this.#incoming(image);
    const helper = await this.#hit(image, incoming, point);
    const qemu = point.victim === "qemu" ? "killed" : await this.#fateOf(incoming, point.phase);
    await this.#judge(point, helper, qemu, incoming);
    await incoming.vm.kill();
    expect(await digestOf(image.path), "the image was touched").toBe(image.digest);
    await this.#restoreWell(image, await this.#incoming(image));
    return { qemu };
  }

  async #hit(image: TrialImage, incoming: Incoming, { hit, victim }: RestorePoint): Promise<HelperProcess> {
    const options = "fault" in hit ? withFault({ ...hit.fault, pid: incoming.vm.pid }) : {};
    const bytes = (await stat(image.path)).size;
    const rate = "fault" in hit ? [] : ["--rate", `${Math.ceil((bytes * 1000) / STRETCHED_MS)}`];
    const args = ["restore", image.path, "--connect", incoming.address, "--json", ...rate];
    const helper = this.#start(args, options);
    if ("afterMs" in hit) {
      await helper.waitEvent("channel", ({ channel }) => channel === 3);
      await sleep(hit.afterMs);
      if (victim === "helper") await incoming.monitor.alive();
      await (victim === "qemu" ? incoming.vm.kill() : helper.kill());
    }
    await helper.exit();
    return helper;
  }

  /** What becomes of a QEMU whose helper is gone, within 5 s (1 s where it may wait on); its monitor answers as long as it lives. */
  async #fateOf({ vm }: Incoming, phase: string): Promise<RestoreVerdict["qemu"]> {
    const deadline = performance.now() + (MAY_WAIT.includes(phase) ? MAY_WAIT_MS : END_MS);
    const exited = vm.exited.then(() => "ended" as const);
    for (;;) {
      const asked = vm.qmp
        .execute("query-migrate", undefined, { timeoutMs: 2000 })
        .catch((error: unknown) => error);
      const answer = await Promise.race([exited, asked]);
      if (answer === "ended") return "ended";
      if (answer instanceof Error) {
        const gone = await Promise.race([exited, sleep(1000, null, { ref: false })]);
        if (gone === null) throw new Error(`QEMU's monitor is silent: ${answer.message}`);
        return "ended";
      }
      if ((answer as { status?: string }).status === "completed") return "completed";
      if (performance.now() > deadline) return "waiting";
      await sleep(20);
    }
  }

  async #judge(
    { phase, victim }: RestorePoint,
    helper: HelperProcess,
    qemu: RestoreVerdict["qemu"],
    incoming: Incoming,
  ): Promise<void> {
    const last = helper.events.at(-1);
    const told = JSON.stringify(last);
    if (qemu === "ended") await incoming.monitor.expectCleanEnd(told);
    incoming.monitor.stop();
    // Before the last channel has connected QEMU waits for the rest: the documented exception.
    if (qemu === "waiting") {
      expect(MAY_WAIT, told).toContain(phase);
      expect((await incoming.vm.quit()).signal, "quit did not end it").toBeNull();
    }
    if (helper.killed) return;
    if (last?.event === "completed") {
      expect(["completed", "killed"], told).toContain(qemu);
    } else if (victim === "worker") {
      expect(last?.code, told).toBe("WORKER_DIED");
    } else {
      expect(["DESTINATION_CLOSED", "CONNECT_FAILED"], told).toContain(last?.code);
    }
  }

  async #restoreWell(image: TrialImage, { vm, ram, address, monitor }: Incoming): Promise<void> {
    const helper = this.#start(["restore", image.path, "--connect", address, "--json"]);
    await Promise.all([helper.success(), waitMigration(vm.qmp, PATIENCE_MS)]);
    monitor.stop();
    if (image.ram !== null) expect(await compareFiles(image.ram, ram.path)).toMatchObject({ differing: 0 });
    await vm.quit();
  }

  /** A QEMU with the devices of the image's guest: the live one has a disk. */
  async #incoming(image: TrialImage): Promise<Incoming> {
    const live = image.ram === null; // and under TCG: see live-image.ts
    const accelerator = live ? "tcg" : await pickAccelerator(this.#binary);
    const start = live ? this.#vms.startDirtier : this.#vms.start;
    const { vm, ram } = await start(this.#binary, { ramBytes: RAM, accelerator, incoming: true });
    await configure(vm, image.channels);
    const address = `unix:${vm.socketPath("in")}`;
    await listenForMigration(vm.qmp, address);
    return { vm, ram, address, monitor: new Monitor(vm) };
  }

  #image(kind: ImageKind): TrialImage {
    const image = this.#images.get(kind);
    if (image === undefined) throw new Error(`no image ${kind}: prepare comes first`);
    return image;
  }

  async #remember(kind: ImageKind, channels: Channels, source: Guest | null): Promise<void> {
    const path = this.#lab.file(kind);
    const ram = source === null ? null : this.#lab.file(`${kind}.ram`);
    if (ram !== null) await copyFile(source?.ram?.path as string, ram);
    this.#images.set(kind, { path, channels, digest: await digestOf(path), ram });
  }
}

async function digestOf(file: string): Promise<string> {
  return createHash("sha256")
    .update(await readFile(file))
    .digest("hex");
}
