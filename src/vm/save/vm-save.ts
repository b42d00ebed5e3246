import { throwIfAborted, whenAborted } from "../../control/cancellation.ts";
import type { CompletedEvent, QemuFigures, RunEvent, VmEvent } from "../../control/events.ts";
import type { SavedVm } from "../../control/options.ts";
import { teller } from "../../control/telling.ts";
import { MultifdError, toFailure } from "../../errors.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import { cancelMigration } from "../cancel.ts";
import { type Guarded, guarded } from "../guard/guarded.ts";
import { finish, goOn, putBack } from "../guard/rescue.ts";
import type { VmSession } from "../session.ts";
import { applySettings, NO_SETTINGS, type Settings, settingsToPutBack, together } from "../settings.ts";
import { openMonitor, type VmTarget } from "../target.ts";
import type { Engine } from "./engine.ts";
import type { SaveVmOptions } from "./options.ts";
import { type Outcome, watchOutgoing } from "./outgoing.ts";
import type { SavePlan } from "./plan.ts";
import { withQemu } from "./progress.ts";
import { recordOf } from "./vm-record.ts";

const QUIT_MS = 30_000;
/** Exit status of the errors that blame the other side of the connections. */
const PEERS_FAULT = 3;

/**
 * One save of a VM by a plan, over an engine, from the first change to the VM to the last.
 *
 *   guarded ─▶ transfer begins ─▶ [stop] ─▶ migrate ─▶ completed ─▶ image published ─▶ quit, pause or resume
 *      └────────────┴────────────────┴─────────┴───────────┴──▶ failed: cancelled, settings back, VM as it was
 */
export class VmSave {
  readonly #session: VmSession;
  readonly #options: SaveVmOptions;
  readonly #plan: SavePlan;
  readonly #engine: Engine;
  readonly #before: Settings;
  readonly #tell: (event: RunEvent) => void;
  /** Ends the transfer: by the caller's signal, once QEMU was told, or because QEMU's side failed. */
  readonly #stop = new AbortController();
  #figures: QemuFigures | null = null;
  /** What of the VM was told last. */
  #state: VmEvent["state"] | null = null;
  #outcome: Promise<Outcome> | null = null;
  #description: Promise<SavedVm> | null = null;
  /** Set from the caller's signal on: what QEMU says from then on is only its answer to that. */
  #cancelled: MultifdError | null = null;

  constructor(session: VmSession, options: SaveVmOptions, plan: SavePlan, engine: Engine) {
    this.#session = session;
    this.#options = options;
    this.#plan = plan;
    this.#engine = engine;
    this.#before = settingsToPutBack(session.found, plan.wanted, engine.parameters);
    this.#tell = teller(options);
  }

  async execute(): Promise<CompletedEvent> {
    const { image, offset = 0, signal } = this.#options;
    const { afterwards, overlays = [] } = this.#plan;
    throwIfAborted(signal);
    const save = { image, offset, afterwards, settings: this.#before, overlays };
    const completed = await guarded(this.#session, save, async (guard) => {
      const done = await this.#transfer(guard);
      guard.published();
      await this.#finish();
      const disks = overlays.map(({ device, base, overlay }) => ({ device, base, overlay }));
      return disks.length === 0 ? done : { ...done, disks };
    });
    this.#tell(completed);
    return completed;
  }

  async #transfer(guard: Guarded): Promise<CompletedEvent> {
    const unwatch = whenAborted(this.#options.signal, (error) => void this.#cancel(error));
    try {
      return await this.#engine.run({
        directory: guard.directory,
        signal: this.#stop.signal,
        begin: (uri, more) => this.#begin(uri, more),
        figures: () => this.#figures,
        outcome: () => this.#outcome as Promise<Outcome>,
        describe: (outcome) => {
          this.#description = this.#describe(outcome);
          return this.#description;
        },
        onEvent: (event) => this.#onEvent(event),
      });
    } catch (error) {
      const reason = await this.#reasonFor(error);
      this.#stop.abort(reason);
      throw this.#withLeftovers(await this.#rescued(reason, guard));
    } finally {
      unwatch();
    }
  }

  #begin(uri: string, more: Settings = NO_SETTINGS): void {
    this.#outcome = this.#migrate(uri, more);
    this.#outcome.catch((error: unknown) => this.#stop.abort(this.#cancelled ?? error));
  }

  async #migrate(uri: string, more: Settings): Promise<Outcome> {
    const { monitor, qemu, found, survey } = this.#session;
    const { wanted, stopFirst, beforeMigrate } = this.#plan;
    const { signal } = this.#stop;
    await applySettings(monitor, found, together(wanted, more));
    throwIfAborted(signal);
    if (survey.running && stopFirst) {
      await monitor.execute("stop");
      this.#tellVm("paused");
    }
    throwIfAborted(signal);
    await beforeMigrate?.();
    throwIfAborted(signal);
    await monitor.execute("migrate", { uri });
    this.#tellVm("migrating");
    const mayEnd = (): boolean => this.#cancelled === null;
    return await watchOutgoing(monitor, qemu, signal, (figures) => this.#look(figures), mayEnd);
  }

  async #look(figures: QemuFigures): Promise<void> {
    this.#figures = figures;
    const state = await this.#plan.look?.(figures);
    if (state) this.#tellVm(state);
  }

  async #describe(outcome: Outcome): Promise<SavedVm> {
    const { survey } = this.#session;
    if (outcome === "qemu ended") return recordOf(survey, this.#plan, []);
    throwIfAborted(this.#stop.signal);
    await this.#plan.afterMigrate?.();
    const record = recordOf(survey, this.#plan, await this.#plan.disks());
    this.#tellVm("migrated");
    const state = await this.#plan.release?.();
    if (state) this.#tellVm(state);
    return record;
  }

  #onEvent(event: RunEvent): void {
    // `completed` is told when the VM is what it is to be, too; `drained` is a question, and QEMU answers it.
    if (event.event === "completed" || event.event === "drained") return;
    this.#tell(event.event === "progress" && this.#figures !== null ? withQemu(event, this.#figures) : event);
  }

  #tellVm(state: VmEvent["state"]): void {
    if (state === this.#state) return;
    this.#state = state;
    this.#tell({ event: "vm", state });
  }

  /** The caller's signal: QEMU first, so that it hears of it from its monitor and not from its sockets. */
  async #cancel(error: MultifdError): Promise<void> {
    this.#cancelled = error;
    await cancelMigration(this.#session.monitor).catch(() => undefined);
    this.#stop.abort(error);
  }

  /**
   * When QEMU's side failed, our side sees broken streams: QEMU's word is the reason. When our side failed (a full
   * disk), QEMU sees a broken pipe: then ours is.
   */
  async #reasonFor(error: unknown): Promise<unknown> {
    if (this.#cancelled !== null) return this.#cancelled;
    if (!(error instanceof MultifdError) || error.exitStatus !== PEERS_FAULT) return error;
    const { reason } = this.#stop.signal;
    if (reason !== undefined) return reason;
    if (await this.#session.qemu.endsWithin(500)) {
      const text = `QEMU ended while it was saved (${error.message})`;
      return new MultifdError("QEMU_FAILED", text, error.details, error);
    }
    const qemus = await this.#outcome?.then(
      () => null,
      (failure: unknown) => failure,
    );
    return qemus ?? error;
  }

  /** @returns the reason, and what of the VM could not be put back */
  async #rescued(reason: unknown, guard: Guarded): Promise<unknown> {
    const { monitor, qemu, target } = this.#session;
    // What is being said to QEMU comes to its end first: a step must not follow its own undoing.
    await Promise.allSettled([this.#outcome, this.#description]);
    if (qemu.ended) return reason;
    try {
      const state = await this.#putRight(monitor).catch(() => this.#putRightAnew(target));
      this.#tellVm(state === "running" ? "running" : "paused");
      return reason;
    } catch (error) {
      if (await qemu.endsWithin(1000)) return reason;
      guard.leaveToGuardian();
      const { code, message, details } = toFailure(reason);
      const text = `${message}; and the VM could not be put back as it was (${toFailure(error).message}): its guardian goes on trying for a minute, then multifd-helper recover is the way`;
      return new MultifdError(code, text, details, reason);
    }
  }

  #withLeftovers(reason: unknown): unknown {
    const left = this.#plan.leftovers?.() ?? null;
    if (left === null) return reason;
    const { code, message, details } = toFailure(reason);
    return new MultifdError(code, `${message}; ${left}`, details, reason);
  }

  async #putRight(monitor: Monitor): Promise<string> {
    await putBack(monitor, this.#before);
    const state = await goOn(monitor, this.#session.survey.running);
    await this.#plan.undo?.(monitor);
    return state;
  }

  /** A monitor that was lost while QEMU lives may take another connection. */
  async #putRightAnew(target: VmTarget): Promise<string> {
    const monitor = await openMonitor(target);
    try {
      return await this.#putRight(monitor);
    } finally {
      await monitor.close();
    }
  }

  /** The image is safe; now for the VM. */
  async #finish(): Promise<void> {
    const { monitor, qemu } = this.#session;
    const { image } = this.#options;
    const { afterwards } = this.#plan;
    if (qemu.ended) return;
    const state = await finish(monitor, { afterwards, settings: this.#before }).catch((error: unknown) => {
      const text = `the image ${image} is complete, but the VM could not be made to ${afterwards}: ${toFailure(error).message}; do that by hand`;
      throw new MultifdError("QEMU_FAILED", text, { image }, error);
    });
    if (afterwards === "quit" && qemu.known && !(await qemu.endsWithin(QUIT_MS))) {
      const text = `the image ${image} is complete, but QEMU has not ended ${QUIT_MS} ms after it was told to: end it by hand, and do not let it go on`;
      throw new MultifdError("QEMU_FAILED", text, { image });
    }
    this.#tellVm(afterwards === "quit" ? "ended" : state === "running" ? "running" : "paused");
  }
}
