import { setTimeout as sleep } from "node:timers/promises";
import { fillGuest } from "../../src/bench/guest-fill.ts";
import { pickAccelerator } from "../../src/demo/accelerator.ts";
import { guestArgs } from "../../src/demo/guest.ts";
import { createRamFile, type RamFile } from "../../src/demo/ram-file.ts";
import { MultifdError } from "../../src/errors.ts";
import type { QmpEvent } from "../../src/qmp/messages.ts";
import type { QemuBinary } from "../../src/vm/find-qemu.ts";
import { waitMigration } from "../../src/vm/migration.ts";
import { type QemuProcess, startQemu } from "../../src/vm/qemu-process.ts";
import { applySettings, readSettings, type Settings } from "../../src/vm/settings.ts";

const MIGRATION_MS = 600_000;

/** A migration under way. The promise comes in an object: as a bare one it would be waited for. */
interface Migration {
  readonly completed: Promise<number>;
}

/** A paused guest whose RAM is a file. Every migration of it sets what it needs, and turns everything else off. */
export class BenchGuest {
  readonly vm: QemuProcess;
  readonly ram: RamFile;
  readonly #found: Settings;

  private constructor(vm: QemuProcess, ram: RamFile, found: Settings) {
    this.vm = vm;
    this.ram = ram;
    this.#found = found;
  }

  /** One full of random bytes. Rejects with the signal's reason when it aborts. */
  static source(binary: QemuBinary, ramBytes: number, signal: AbortSignal): Promise<BenchGuest> {
    return BenchGuest.#start(binary, ramBytes, false, (path) => fillGuest(path, ramBytes, "random", signal));
  }

  /** One with empty RAM that waits for `incoming`. */
  static destination(binary: QemuBinary, ramBytes: number): Promise<BenchGuest> {
    return BenchGuest.#start(binary, ramBytes, true);
  }

  static async #start(
    binary: QemuBinary,
    ramBytes: number,
    incoming: boolean,
    fill: (path: string) => Promise<void> = async () => undefined,
  ): Promise<BenchGuest> {
    const ram = await createRamFile(ramBytes);
    try {
      await fill(ram.path);
      const args = guestArgs({
        ramBytes,
        memory: { kind: "file", path: ram.path },
        accelerator: await pickAccelerator(binary),
        incoming,
      });
      const vm = await startQemu({ binary, args });
      return new BenchGuest(vm, ram, await readSettings(vm.qmp));
    } catch (error) {
      await ram.close();
      throw error;
    }
  }

  async set({ capabilities, parameters }: Settings): Promise<void> {
    await applySettings(this.vm.qmp, this.#found, {
      capabilities: { ...capabilities, events: true },
      parameters: { "max-bandwidth": 0, "direct-io": false, ...parameters },
    });
  }

  /** Resolves when QEMU calls the migration completed, with the time of that. */
  async migrate(uri: string): Promise<number> {
    return (await this.#begin("migrate", uri)).completed;
  }

  /** For a guest that waits: resolves when it listens, or has begun to read. `completed` is as for migrate(). */
  incoming(uri: string): Promise<Migration> {
    return this.#begin("migrate-incoming", uri);
  }

  /** QEMU saves a guest again only once it ran in between. */
  async runAMoment(): Promise<void> {
    await this.vm.qmp.execute("cont");
    await sleep(1);
    await this.vm.qmp.execute("stop");
  }

  async close(): Promise<void> {
    await this.vm.kill();
    await this.ram.close();
  }

  async #begin(command: string, uri: string): Promise<Migration> {
    const { qmp } = this.vm;
    const completed = qmp.waitEvent(isEnd, MIGRATION_MS).then(async () => {
      const at = performance.now();
      await waitMigration(qmp, MIGRATION_MS); // rejects unless it is completed
      return at;
    });
    completed.catch(() => undefined);
    await qmp.execute(command, { uri });
    return { completed };
  }
}

function isEnd({ event, data }: QmpEvent): boolean {
  return event === "MIGRATION" && ["completed", "failed", "cancelled"].includes(String(data.status));
}

/** Settings of multifd over this many channels. */
export function multifd(channels: number): Settings {
  return { capabilities: { multifd: true }, parameters: { "multifd-channels": channels } };
}

/** The newest QEMU here that has mapped-ram with direct-io. Rejects with QEMU_MISSING. */
export function newestOf(binaries: readonly QemuBinary[]): QemuBinary {
  const newest = binaries.findLast(({ major }) => major >= 10);
  if (newest !== undefined) return newest;
  throw new MultifdError("QEMU_MISSING", "the benchmarks need QEMU 10.0 or later: run .ci/setup --bench");
}
