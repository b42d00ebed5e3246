import { chmodSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { throwIfAborted, whenAborted } from "../control/cancellation.ts";
import type { CompletedEvent, DrainedEvent, QemuFigures, RunEvent } from "../control/events.ts";
import type { Log, SavedVm } from "../control/options.ts";
import { save } from "../control/save.ts";
import { SILENT } from "../control/silent-log.ts";
import { teller } from "../control/telling.ts";
import { MultifdError } from "../errors.ts";
import { inheritedFd } from "../io/image-target/file-kind.ts";
import type { Monitor } from "../qmp/monitor.ts";
import { recordDisks } from "./disks.ts";
import { Guardian } from "./guardian.ts";
import { type Journal, journalPath, removeJournal, type Then, writeJournal } from "./journal.ts";
import { LivePolicy } from "./live-policy.ts";
import { cancelMigration, watchOutgoing } from "./outgoing.ts";
import { QemuWatch } from "./qemu-watch.ts";
import { finish, rescue } from "./rescue.ts";
import type { SaveVmOptions } from "./save-options.ts";
import { withQemu } from "./save-progress.ts";
import { refuseStaleJournal, refuseUnfit } from "./save-refusals.ts";
import { DEFAULT_CHANNELS, settingsFor } from "./save-settings.ts";
import { applySettings, readSettings, type Settings, settingsToPutBack } from "./settings.ts";
import { type Survey, surveyVm } from "./survey.ts";
import { absolute, openMonitor } from "./target.ts";
import { recordOf } from "./vm-record.ts";

const QUIT_MS = 30_000;
const PASSABLE = 0o711;

/**
 * Saves a VM: stops it, or lets it run (`live`), migrates it into an image, and does with it what `then` says, once the image
 * is on disk. Whatever fails before that, the VM runs on as it did, with its settings as they were; a guardian process
 * sees to it even when this one is killed.
 * @throws MultifdError MONITOR_UNREACHABLE, VM_STATE, QEMU_UNSUPPORTED, QEMU_FAILED, and what save() throws
 */
export async function saveVm(options: SaveVmOptions): Promise<CompletedEvent> {
  throwIfAborted(options.signal);
  const monitor = await openMonitor(options.vm);
  const qemu = new QemuWatch(monitor.pid);
  try {
    const survey = await surveyVm(monitor);
    refuseUnfit(survey, monitor);
    const run = new VmSave(options, monitor, qemu, survey, await readSettings(monitor));
    const completed = await run.execute();
    teller(options)(completed);
    return completed;
  } finally {
    qemu.close();
    await monitor.close();
  }
}

class VmSave {
  readonly #options: SaveVmOptions;
  readonly #monitor: Monitor;
  readonly #qemu: QemuWatch;
  readonly #survey: Survey;
  readonly #found: Settings;
  readonly #wanted: Settings;
  readonly #policy: LivePolicy | null;
  readonly #tell: (event: RunEvent) => void;
  readonly #log: Log;
  /** Ends the data path: by the caller's signal, once QEMU was told, or because QEMU's side failed. */
  readonly #stop = new AbortController();
  readonly #directory = mkdtempSync(join(tmpdir(), "multifd-save-"));
  #progress: QemuFigures | null = null;
  #vm: SavedVm | null = null;
  /** Set from the caller's signal on: what QEMU says from then on is only its answer to that. */
  #cancelled: MultifdError | null = null;
  #outcome: ReturnType<typeof watchOutgoing> | null = null;

  constructor(options: SaveVmOptions, monitor: Monitor, qemu: QemuWatch, survey: Survey, found: Settings) {
    this.#options = options;
    this.#monitor = monitor;
    this.#qemu = qemu;
    this.#survey = survey;
    this.#found = found;
    this.#wanted = settingsFor(options);
    this.#policy = options.live === undefined ? null : new LivePolicy(monitor, options.live);
    this.#tell = teller(options);
    this.#log = options.log ?? SILENT;
  }

  async execute(): Promise<CompletedEvent> {
    const { vm: target, then = "quit", image } = this.#options;
    const { running } = this.#survey;
    const settings = settingsToPutBack(this.#found, this.#wanted);
    const qemuPid = this.#monitor.pid;
    refuseStaleJournal(target, qemuPid);
    const journal: Journal = {
      version: 1,
      target: absolute(target),
      pid: process.pid,
      qemuPid,
      running,
      settings,
      phase: "saving",
      then,
      image: inheritedFd(image) === null ? resolve(image) : image,
      directory: this.#directory,
    };
    const path = journalPath(target);
    writeJournal(path, journal);
    let guardian: Guardian | null = null;
    try {
      guardian = await Guardian.start(["recover", path]);
      const completed = await this.#saveOrRescue({ running, settings });
      writeJournal(path, { ...journal, phase: "published" });
      await this.#finish(then, settings);
      return completed;
    } finally {
      rmSync(this.#directory, { recursive: true, force: true });
      removeJournal(path);
      await guardian?.dismiss();
    }
  }

  async #saveOrRescue(before: { running: boolean; settings: Settings }): Promise<CompletedEvent> {
    const unwatch = whenAborted(this.#options.signal, (error) => void this.#cancel(error));
    try {
      return await this.#migrateIntoImage();
    } catch (error) {
      const reason = await this.#reasonFor(error);
      throw await this.#rescued(before, reason);
    } finally {
      unwatch();
    }
  }

  async #migrateIntoImage(): Promise<CompletedEvent> {
    return await save({
      ...this.#options,
      channels: this.#options.channels ?? DEFAULT_CHANNELS,
      listen: `unix:${join(this.#directory, "s")}`,
      allowUids: this.#letQemuIn(),
      signal: this.#stop.signal,
      confirm: (drained) => this.#confirm(drained),
      describeVm: () => this.#vm as SavedVm,
      onEvent: (event) => this.#onEvent(event),
    });
  }

  /** A QEMU of another user has to reach the socket. */
  #letQemuIn(): number[] {
    const { pid } = this.#monitor;
    const uid = pid === null ? undefined : statSync(`/proc/${pid}`, { throwIfNoEntry: false })?.uid;
    if (uid === undefined || uid === process.getuid?.()) return [];
    chmodSync(this.#directory, PASSABLE);
    return [uid];
  }

  #onEvent(event: RunEvent): void {
    if (event.event === "listening") void this.#begin(event.address);
    // `completed` is told when the VM is what it is to be, too; `drained` is a question, and QEMU answers it.
    if (event.event === "completed" || event.event === "drained") return;
    this.#tell(
      event.event === "progress" && this.#progress !== null ? withQemu(event, this.#progress) : event,
    );
  }

  /** Once connections would succeed. */
  async #begin(address: string): Promise<void> {
    try {
      await applySettings(this.#monitor, this.#found, this.#wanted);
      throwIfAborted(this.#stop.signal);
      if (this.#survey.running && this.#policy === null) {
        await this.#monitor.execute("stop");
        this.#tell({ event: "vm", state: "paused" });
      }
      await this.#monitor.execute("migrate", { uri: address });
      this.#tell({ event: "vm", state: "migrating" });
      this.#outcome = watchOutgoing(this.#monitor, this.#qemu, this.#stop.signal, (progress) =>
        this.#look(progress),
      );
      await this.#outcome;
    } catch (error) {
      this.#stop.abort(this.#cancelled ?? error);
    }
  }

  async #look(progress: QemuFigures): Promise<void> {
    this.#progress = progress;
    if ((await this.#policy?.look(progress)) === "stopped") this.#tell({ event: "vm", state: "paused" });
  }

  /** Every byte is here. Whether QEMU means it, only QEMU knows: it may have been cancelled after its last byte. */
  async #confirm(drained: DrainedEvent): Promise<"commit"> {
    const outcome = await this.#outcome;
    if (outcome === "completed") {
      this.#vm = await this.#describe();
      this.#tell({ event: "vm", state: "migrated" });
      return "commit";
    }
    if (drained.evidence.verdict !== "complete") {
      throw new MultifdError(
        "QEMU_FAILED",
        "QEMU ended while it was saved, and its stream does not prove that it was whole: nothing was saved",
      );
    }
    this.#log.warn(
      {},
      "QEMU ended before it called the migration completed; its stream is whole, so the image is kept",
    );
    this.#vm = recordOf(this.#survey, this.#options.then, []);
    return "commit";
  }

  async #describe(): Promise<SavedVm> {
    return recordOf(this.#survey, this.#options.then, await recordDisks(this.#monitor));
  }

  /** The caller's signal: QEMU first, so that it hears of it from its monitor and not from its sockets. */
  async #cancel(error: MultifdError): Promise<void> {
    this.#cancelled = error;
    await cancelMigration(this.#monitor).catch(() => undefined);
    this.#stop.abort(error);
  }

  /** When QEMU's side failed, our side sees broken streams: QEMU's word is the reason. */
  async #reasonFor(error: unknown): Promise<unknown> {
    const { reason } = this.#stop.signal;
    if (reason !== undefined) return reason;
    if (!(error instanceof MultifdError) || error.exitStatus !== 3) return error;
    if (await this.#qemu.endsWithin(500)) {
      const text = `QEMU ended while it was saved (${error.message})`;
      return new MultifdError("QEMU_FAILED", text, error.details, error);
    }
    const qemus = await this.#outcome?.then(
      () => null,
      (failure: unknown) => failure,
    );
    return qemus ?? error;
  }

  async #rescued(before: { running: boolean; settings: Settings }, reason: unknown): Promise<unknown> {
    this.#stop.abort(reason);
    if (this.#qemu.ended) return reason;
    try {
      const state = await rescue(this.#monitor, before);
      this.#tell({ event: "vm", state: state === "running" ? "running" : "paused" });
      return reason;
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      const said = reason instanceof Error ? reason.message : String(reason);
      const text = `${said}; and the VM could not be put back as it was: ${why}; try multifd-helper recover`;
      return reason instanceof MultifdError
        ? new MultifdError(reason.code, text, reason.details, reason)
        : reason;
    }
  }

  async #finish(then: Then, settings: Settings): Promise<void> {
    if (this.#qemu.ended) return;
    const { image } = this.#options;
    const state = await finish(this.#monitor, { then, settings }).catch((error: unknown) => {
      const why = error instanceof Error ? error.message : String(error);
      const text = `the image ${image} is complete, but the VM could not be made to ${then}: ${why}; do that by hand`;
      throw new MultifdError("QEMU_FAILED", text, { image }, error);
    });
    if (then === "quit" && this.#qemu.known && !(await this.#qemu.endsWithin(QUIT_MS))) {
      const text = `the image ${image} is complete, but QEMU has not ended ${QUIT_MS} ms after it was told to: end it by hand, and do not let it go on`;
      throw new MultifdError("QEMU_FAILED", text, { image });
    }
    this.#tell({
      event: "vm",
      state: then === "quit" ? "ended" : state === "running" ? "running" : "paused",
    });
  }
}
