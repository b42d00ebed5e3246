import type { CompletedEvent, QemuFigures, RunEvent } from "../../control/events.ts";
import type { SavedVm } from "../../control/options.ts";
import type { Settings } from "../settings.ts";
import type { Outcome } from "./outgoing.ts";

/** What carries a migration into a file: our own data path, or QEMU itself. */
export interface Engine {
  /** Parameters that it sets beyond the plan's: they are to be put back, too. */
  readonly parameters: readonly string[];
  /** Runs the transfer from its preparation to the published image. */
  run(control: TransferControl): Promise<CompletedEvent>;
}

/** What an engine is given. */
export interface TransferControl {
  /** A directory for sockets. */
  readonly directory: string;
  /** Aborts when the save is given up; its reason is the error. */
  readonly signal: AbortSignal;
  /** Starts the migration, with `more` settings than the plan's, once the engine can take it: QEMU is set up, the VM stopped if it is to be. Never rejects. */
  begin(uri: string, more?: Settings): void;
  /** QEMU's figures so far; null before the migration. */
  figures(): QemuFigures | null;
  /**
   * How the migration that begin() started ended. "qemu ended" is for the engine to judge.
   * Rejects with QEMU's reason.
   */
  outcome(): Promise<Outcome>;
  /** After the outcome: what the image is to say of the VM. */
  describe(outcome: Outcome): Promise<SavedVm>;
  onEvent(event: RunEvent): void;
}
