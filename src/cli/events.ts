import type { Writable } from "node:stream";
import type { DiffReport } from "../control/convert/diff.ts";
import type { CompletedEvent, FailedEvent, ImageFacts, RunEvent } from "../control/events.ts";
import type { VerifyReport } from "../control/reports.ts";
import { CONTRACT_VERSION, VERSION } from "../version.ts";

/** The first line of every run. */
interface HelloEvent {
  readonly event: "hello";
  /** Version of docs/manager-contract.md. */
  readonly contract: number;
  /** Version of this program. */
  readonly version: string;
}

/** How `verify` completes: what was checked instead of how fast each channel moved. */
export interface VerifyCompletedEvent
  extends Pick<CompletedEvent, "event" | "bytes" | "elapsedMs">,
    Pick<VerifyReport, "checked" | "blocks" | "resumed"> {
  readonly image: Pick<ImageFacts, "path">;
}

/** How `diff` completes. */
export interface DiffCompletedEvent
  extends Pick<CompletedEvent, "event">,
    Omit<DiffReport, "path" | "other"> {
  readonly image: Pick<ImageFacts, "path">;
  readonly other: Pick<ImageFacts, "path">;
}

/** How `start` succeeds: the VM is there. With a QEMU in the foreground the process goes on. */
export interface StartedEvent {
  readonly event: "started";
  readonly name: string;
  /** Restored from its managed image, or booted because there was none. */
  readonly from: "image" | "boot";
  /** QEMU's process. */
  readonly pid: number;
}

/** Every event of the contract, without `time`. */
export type CliEvent =
  | HelloEvent
  | RunEvent
  | VerifyCompletedEvent
  | DiffCompletedEvent
  | StartedEvent
  | FailedEvent;

/**
 * Writes events as newline-delimited JSON, `time` added. It never throws and never makes the run wait: once
 * the reader is gone events are dropped, and while it is behind progress is (the others are few by nature,
 * so that memory stays bounded).
 */
export class EventWriter {
  readonly #stream: Writable;
  #gone = false;

  constructor(stream: Writable) {
    this.#stream = stream;
    stream.on("error", () => {
      this.#gone = true;
    });
  }

  hello(): void {
    this.write({ event: "hello", contract: CONTRACT_VERSION, version: VERSION });
  }

  write(event: CliEvent): void {
    if (this.#gone) return;
    if (event.event === "progress" && this.#stream.writableLength > 0) return;
    const { event: name, ...fields } = event;
    this.#stream.write(`${JSON.stringify({ event: name, time: new Date().toISOString(), ...fields })}\n`);
  }
}
