import type { CompletedEvent } from "../../control/events.ts";
import { Meter } from "../../control/meter.ts";
import { MultifdError } from "../../errors.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import { cancelMigration } from "../cancel.ts";
import {
  abandonFileSave,
  finishFileSave,
  type PreparedFileSave,
  prepareFileSave,
} from "../engine-file/save.ts";
import { CANCELLABLE, HASTE } from "../quiet.ts";
import { together } from "../settings.ts";
import type { Engine, TransferControl } from "./engine.ts";
import type { SaveVmOptions } from "./options.ts";

const TICK_MS = 100;

/** QEMU writes the image itself (mapped-ram, 9.0 and later); what it leaves out is added when it has. */
export class FileEngine implements Engine {
  readonly parameters: readonly string[] = ["direct-io", ...HASTE];
  readonly #options: SaveVmOptions;
  readonly #channels: number;
  readonly #monitor: Monitor;
  readonly #vmUuid: string | null;
  readonly #meter = new Meter();

  constructor(options: SaveVmOptions, channels: number, monitor: Monitor, vmUuid: string | null) {
    this.#options = options;
    this.#channels = channels;
    this.#monitor = monitor;
    this.#vmUuid = vmUuid;
  }

  async run(control: TransferControl): Promise<CompletedEvent> {
    const { signal } = control;
    const prepared = await prepareFileSave(this.#monitor, {
      ...this.#options,
      channels: this.#channels,
      signal,
    });
    await this.#migrate(prepared, control);
    const vm = await control.describe("completed");
    const { image, bytes } = await finishFileSave(prepared, vm, this.#vmUuid);
    return { event: "completed", bytes, elapsedMs: this.#meter.elapsedMs, image, channels: [] };
  }

  async #migrate(prepared: PreparedFileSave, control: TransferControl): Promise<void> {
    const ticker = setInterval(() => this.#tick(control), TICK_MS);
    try {
      control.begin(prepared.uri, this.#channels > 0 ? together(prepared, CANCELLABLE) : prepared);
      if ((await control.outcome()) === "completed") return;
      throw new MultifdError("QEMU_FAILED", "QEMU ended while it wrote the image: nothing was saved");
    } catch (error) {
      // Only when QEMU has let go of the file can it be removed.
      await cancelMigration(this.#monitor).catch(() => undefined);
      await abandonFileSave(prepared);
      throw error;
    } finally {
      clearInterval(ticker);
    }
  }

  #tick(control: TransferControl): void {
    const figures = control.figures();
    const event =
      figures === null ? null : this.#meter.sample([{ channel: "main", bytes: figures.transferredBytes }]);
    if (event !== null) control.onEvent({ ...event, channels: [] });
  }
}
