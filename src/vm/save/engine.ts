import type { CompletedEvent, RunEvent } from "../../control/events.ts";
import type { SavedVm } from "../../control/options.ts";
import type { Outcome } from "./outgoing.ts";

/** What carries a migration into a file: our own data path, or QEMU itself. */
export interface Engine {
  /** Runs the transfer from its preparation to the published image. */
  run(control: TransferControl): Promise<CompletedEvent>;
}

/** What an engine is given. */
export interface TransferControl {
  /** A directory for sockets. */
  readonly directory: string;
  /** Aborts when the save is given up; its reason is the error. */
  readonly signal: AbortSignal;
  /** Starts the migration once the engine can take it: QEMU is set up, the VM stopped if it is to be. Never rejects. */
  begin(uri: string): void;
  /**
   * How the migration that begin() started ended. "qemu ended" is for the engine to judge.
   * Rejects with QEMU's reason.
   */
  outcome(): Promise<Outcome>;
  /** After the outcome: what the image is to say of the VM. */
  describe(outcome: Outcome): Promise<SavedVm>;
  onEvent(event: RunEvent): void;
}
