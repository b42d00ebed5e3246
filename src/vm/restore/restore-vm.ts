import { throwIfAborted } from "../../control/cancellation.ts";
import { NO_UUID } from "../../control/destination-needs.ts";
import type { CompletedEvent, RunEvent, VmEvent } from "../../control/events.ts";
import type { Log, RestoreOptions } from "../../control/options.ts";
import type { RestorableReport } from "../../control/reports.ts";
import { SILENT } from "../../control/silent-log.ts";
import { teller } from "../../control/telling.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import { QemuWatch } from "../qemu-watch.ts";
import { runState } from "../survey.ts";
import { openMonitor, type VmTarget } from "../target.ts";
import { checkDestination } from "./check-destination.ts";
import { explainLock } from "./disk-lock.ts";
import { feedPages, feedStreams } from "./feed-image.ts";
import { reasonFor } from "./incoming.ts";
import { loadMapped } from "./load-mapped.ts";
import { checkRamFiles, isRamZero } from "./ram-files.ts";
import { readSaved, type SavedImage } from "./saved-image.ts";

export interface RestoreVmOptions extends Omit<RestoreOptions, "connect" | "zeroedRam"> {
  /**
   * Who moves a mapped-ram image: "helper", which checks each page before it is sent and knows every QEMU, or "file", QEMU
   * itself (9.0 and later). Default helper.
   */
  readonly engine?: "helper" | "file" | undefined;
  /** Empties RAM files of the destination that hold data, instead of refusing them. */
  readonly clearRam?: boolean | undefined;
  /** Whether the VM runs afterwards; as it did when it was saved, when left out. */
  readonly run?: boolean | undefined;
  /** Called with the VM restored and paused, before it is let run if it is to: what throws here keeps it from running. */
  readonly beforeRun?: ((run: boolean) => Promise<void>) | undefined;
}

/**
 * Restores a VM into a QEMU that waits (-incoming defer): looks whether it is the VM in the image, sets it up, feeds it, and
 * lets it run if it ran when it was saved. What the image prescribes, as its number of channels, is never asked for.
 * @throws MultifdError MONITOR_UNREACHABLE, VM_STATE, VM_MISMATCH, DISK_CHANGED, VM_RAN_ON, RAM_NOT_EMPTY, QEMU_FAILED,
 *   and what restore() throws
 */
export async function restoreVm(
  options: RestoreVmOptions & { readonly vm: VmTarget },
): Promise<CompletedEvent> {
  throwIfAborted(options.signal);
  const saved = await readSaved(options);
  const monitor = await openMonitor(options.vm);
  try {
    return await restoreInto(monitor, saved, options, `the QEMU at ${monitor.place}`);
  } finally {
    await monitor.close();
  }
}

/**
 * The restore itself, into a QEMU whose monitor is ours.
 * @param place how messages name that QEMU
 */
export async function restoreInto(
  monitor: Monitor,
  saved: SavedImage,
  options: RestoreVmOptions,
  place: string,
): Promise<CompletedEvent> {
  const qemu = new QemuWatch(monitor.pid);
  try {
    return await new VmRestore(monitor, saved, options, qemu, place).execute();
  } finally {
    qemu.close();
  }
}

class VmRestore {
  readonly #monitor: Monitor;
  readonly #saved: SavedImage;
  readonly #options: RestoreVmOptions;
  readonly #qemu: QemuWatch;
  readonly #tell: (event: RunEvent) => void;
  readonly #log: Log;
  readonly #place: string;
  /** Of the destination. */
  #uuid: string | null = null;
  #zeroedRam = false;

  constructor(
    monitor: Monitor,
    saved: SavedImage,
    options: RestoreVmOptions,
    qemu: QemuWatch,
    place: string,
  ) {
    this.#place = place;
    this.#monitor = monitor;
    this.#saved = saved;
    this.#options = options;
    this.#qemu = qemu;
    this.#tell = teller(options);
    this.#log = options.log ?? SILENT;
  }

  async execute(): Promise<CompletedEvent> {
    await this.#check();
    const completed = await this.#load();
    const run = this.#options.run ?? this.#saved.running;
    await this.#options.beforeRun?.(run);
    await this.#letRun(run);
    this.#tell(completed);
    return completed;
  }

  /** Everything that can be wrong is said before the first byte goes to QEMU: its migrate-incoming works only once. */
  async #check(): Promise<void> {
    const { clearRam = false, force = false, uuid } = this.#options;
    const comparison = { place: this.#place, uuid: uuid ?? this.#saved.uuid, force };
    this.#uuid = (await checkDestination(this.#monitor, this.#saved, comparison, this.#log)).uuid;
    if (this.#sendsPages) this.#zeroedRam = await isRamZero(this.#monitor, clearRam);
    else if (needsZeroedRam(this.#saved.report) && !(force && !clearRam))
      await checkRamFiles(this.#monitor, clearRam);
  }

  /** A mapped-ram image goes through channels of ours. */
  get #sendsPages(): boolean {
    return this.#saved.report.format === "mapped-ram" && this.#options.engine !== "file";
  }

  async #load(): Promise<CompletedEvent> {
    try {
      const image = this.#saved.report;
      const options = this.#options;
      const begun = (): void => this.#tellVm("migrating");
      let completed: CompletedEvent;
      if (image.format === "stream") {
        completed = await feedStreams(this.#monitor, image, options, begun);
      } else if (options.engine === "file") {
        completed = await loadMapped(this.#monitor, image, options, begun);
      } else {
        const own = { zeroedRam: this.#zeroedRam, uuid: this.#uuid ?? NO_UUID };
        completed = await feedPages(this.#monitor, image, { ...options, ...own }, begun);
      }
      this.#tellVm("migrated");
      return completed;
    } catch (error) {
      throw await reasonFor(error, this.#monitor, this.#qemu);
    }
  }

  #tellVm(state: VmEvent["state"]): void {
    this.#tell({ event: "vm", state });
  }

  async #letRun(run: boolean): Promise<void> {
    const { running } = await runState(this.#monitor);
    if (run && !running) await this.#monitor.execute("cont").catch(explainLock);
    if (!run && running) await this.#monitor.execute("stop");
    this.#tellVm(run ? "running" : "paused");
  }
}

/** QEMU leaves out zero pages of a mapped-ram image, as a rule. */
function needsZeroedRam(image: RestorableReport): boolean {
  return image.format === "mapped-ram" || image.destination?.zeroedRam === true;
}
