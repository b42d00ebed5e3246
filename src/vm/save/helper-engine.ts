import { chmodSync, statSync } from "node:fs";
import { join } from "node:path";
import type { CompletedEvent, DrainedEvent } from "../../control/events.ts";
import type { SavedVm } from "../../control/options.ts";
import { save } from "../../control/save.ts";
import { SILENT } from "../../control/silent-log.ts";
import { MultifdError } from "../../errors.ts";
import { libvirtHome } from "../../qmp/libvirt-home.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import type { Engine, TransferControl } from "./engine.ts";
import type { SaveVmOptions } from "./options.ts";

const PASSABLE = 0o711;

/** Our own data path: QEMU's channels come to a socket of ours. */
export class HelperEngine implements Engine {
  readonly parameters: readonly string[] = [];
  readonly #options: SaveVmOptions;
  readonly #channels: number;
  readonly #monitor: Monitor;

  constructor(options: SaveVmOptions, channels: number, monitor: Monitor) {
    this.#options = options;
    this.#channels = channels;
    this.#monitor = monitor;
  }

  async run(control: TransferControl): Promise<CompletedEvent> {
    const { socket, allowUids } = await this.#place(control.directory);
    let vm: SavedVm;
    return await save({
      ...this.#options,
      channels: this.#channels,
      listen: `unix:${socket}`,
      allowUids,
      signal: control.signal,
      onEvent: (event) => {
        control.onEvent(event);
        if (event.event === "listening") control.begin(event.address);
      },
      // Every byte is here. Whether QEMU means it, only QEMU knows: it may have been cancelled after its last byte.
      confirm: async (drained) => {
        const outcome = await control.outcome();
        if (outcome === "qemu ended") this.#judge(drained);
        vm = await control.describe(outcome);
        return "commit";
      },
      describeVm: () => vm,
    });
  }

  /** A QEMU that ended before it said `completed` leaves only its stream to tell whether all was sent. */
  #judge({ evidence }: DrainedEvent): void {
    if (evidence.verdict !== "complete") {
      const text =
        "QEMU ended while it was saved, and its stream does not prove that it was whole: nothing was saved";
      throw new MultifdError("QEMU_FAILED", text);
    }
    const { log = SILENT } = this.#options;
    log.warn(
      {},
      "QEMU ended before it called the migration completed; its stream is whole, so the image is kept",
    );
  }

  /** Where QEMU can reach the socket: one of another user needs to be let in, one of libvirt's has its own directory. */
  async #place(directory: string): Promise<{ socket: string; allowUids: readonly number[] }> {
    const home = await libvirtHome(this.#monitor);
    const uid = home?.uid ?? ownerOf(this.#monitor.pid);
    const allowUids = uid === undefined || uid === process.getuid?.() ? [] : [uid];
    if (home !== null) return { socket: join(home.directory, `multifd-${process.pid}`), allowUids };
    if (allowUids.length > 0) chmodSync(directory, PASSABLE);
    return { socket: join(directory, "s"), allowUids };
  }
}

function ownerOf(pid: number | null): number | undefined {
  return pid === null ? undefined : statSync(`/proc/${pid}`, { throwIfNoEntry: false })?.uid;
}
