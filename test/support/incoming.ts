import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "vitest";
import type { MultifdError } from "../../src/errors.ts";
import type { QemuBinary } from "../../src/vm/find-qemu.ts";
import type { QemuExit, QemuProcess } from "../../src/vm/qemu-process.ts";
import { pickAccelerator } from "./accelerator.ts";
import { type Channels, configure } from "./lab.ts";
import type { VmOptions, Vms } from "./vms.ts";

const ANSWER_MS = 2000;
const END_MS = 5000;

export interface IncomingOptions extends Partial<VmOptions> {
  readonly ramBytes: number;
  /** false: QEMU 9.1 and later stay, with status failed. */
  readonly exitOnError?: boolean;
  /** Where it listens; a unix socket of its own if absent. */
  readonly uri?: string;
}

/** A QEMU that waits for a migration, and whose monitor is asked all the time whether it is alive. */
export interface Incoming {
  readonly vm: QemuProcess;
  readonly address: string;
  readonly monitor: Monitor;
}

export async function startIncoming(
  vms: Vms,
  binary: QemuBinary,
  channels: Channels,
  options: IncomingOptions,
): Promise<Incoming> {
  const { exitOnError, uri, ...guest } = options;
  const accelerator = await pickAccelerator(binary);
  const { vm } = await vms.start(binary, { accelerator, ...guest, incoming: true });
  await configure(vm, channels);
  const address = uri ?? `unix:${vm.socketPath("in")}`;
  const leniency = exitOnError === undefined ? {} : { "exit-on-error": exitOnError };
  await vm.qmp.execute("migrate-incoming", { uri: address, ...leniency });
  return { vm, address, monitor: new Monitor(vm) };
}

/** Asks for QEMU's status every 50 ms until it is gone; a dead monitor shows as an answer that does not come. */
export class Monitor {
  answers = 0;
  readonly #vm: QemuProcess;
  readonly #asking: Promise<MultifdError>;
  #stopped = false;

  constructor(vm: QemuProcess) {
    this.#vm = vm;
    this.#asking = this.#ask();
  }

  /** Waits for the next answer; rejects when there is none within 2 s. */
  async alive(): Promise<void> {
    await this.#vm.qmp.execute("query-status", undefined, { timeoutMs: ANSWER_MS });
  }

  /** QEMU must be gone or go by itself within 5 s, complaining, and have answered until then. */
  async expectCleanEnd(hint: string): Promise<void> {
    const exit = await Promise.race([this.#vm.exited, sleep(END_MS, null, { ref: false })]);
    expect(exit, `QEMU has not ended within ${END_MS} ms; ${hint}`).not.toBeNull();
    const { code, signal } = exit as QemuExit;
    expect(signal, hint).toBeNull();
    expect(code, hint).not.toBe(0);
    expect(this.#vm.stderr.trim(), hint).not.toBe("");
    const { details } = await this.#asking;
    expect(details.timeoutMs, `QEMU's monitor was silent; ${hint}`).toBeUndefined();
    expect(this.answers, hint).toBeGreaterThan(0);
  }

  /** QEMU must stay, answer, and call the migration failed within 5 s. */
  async expectFailedStatus(hint: string): Promise<void> {
    const deadline = performance.now() + END_MS;
    let info: unknown;
    do {
      info = await this.#vm.qmp.execute("query-migrate", undefined, { timeoutMs: ANSWER_MS });
      if ((info as { status?: string }).status === "failed") break;
      await sleep(20);
    } while (performance.now() < deadline);
    expect(info, hint).toMatchObject({ status: "failed" });
    await this.alive();
  }

  stop(): void {
    this.#stopped = true;
  }

  async #ask(): Promise<MultifdError> {
    for (;;) {
      try {
        await this.alive();
      } catch (error) {
        return error as MultifdError;
      }
      this.answers++;
      await sleep(50, null, { ref: false });
      if (this.#stopped) return new Promise(() => undefined);
    }
  }
}
