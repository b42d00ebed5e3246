import { MultifdError } from "../../errors.ts";
import { ReturnPath, type ReturnPathSink } from "../../formats/postcopy/return-path.ts";
import { checkedCopy } from "../checked-copy.ts";
import type { ControlBlock } from "../control-block.ts";
import type { CheckedFileStep } from "../messages.ts";
import { closedEarly, PageLink } from "./page-link.ts";

/** What it says about pages. */
export type PageTalk = Pick<ReturnPathSink, "request" | "received">;

/** The QEMU at the other end: what it is told in order, and what it has answered. */
export class Destination {
  readonly link: PageLink;
  readonly #control: ControlBlock;
  #pong = 0;
  #resumed = false;
  #status: number | null = null;

  /**
   * @param fd of the connection; owned by the destination from here on
   * @param bitmapBytes of a RAMBlock by its name; null: there is no such block
   */
  constructor(
    fd: number,
    control: ControlBlock,
    talk: PageTalk,
    bitmapBytes: (block: string) => number | null,
  ) {
    this.#control = control;
    const hear = (change: () => void): void => {
      change();
      control.ring();
    };
    const path = new ReturnPath(
      {
        request: talk.request,
        received: (block, bitmap) => hear(() => talk.received(block, bitmap)),
        pong: (number) => hear(() => (this.#pong = number)),
        resumed: () => hear(() => (this.#resumed = true)),
        shut: (status) => hear(() => (this.#status = status)),
      },
      bitmapBytes,
    );
    this.link = new PageLink(
      fd,
      (bytes) => path.push(bytes),
      () => control.ring(),
    );
  }

  async sendSteps(image: number, steps: readonly CheckedFileStep[]): Promise<void> {
    for (const step of steps) {
      if (step.kind === "bytes") await this.link.send([step.bytes]);
      else for await (const bytes of checkedCopy(image, step)) await this.link.send([bytes]);
    }
  }

  /** It has done all that stands before the ping of this number. */
  whenPonged(number: number): Promise<void> {
    return this.until(() => this.#pong === number);
  }

  /** It agrees to go on. */
  whenResumed(): Promise<void> {
    return this.until(() => this.#resumed);
  }

  /** Its last word. Throws QEMU_FAILED, where it is that its load failed. */
  async whenShut(): Promise<void> {
    await this.until(() => this.#status !== null);
    if (this.#status !== 0) this.check();
  }

  /**
   * Waits for something, but no longer than the destination is there and the run goes on.
   * @throws MultifdError why it cannot come any more: the link's failure, DESTINATION_CLOSED, QEMU_FAILED, CANCELLED
   */
  async until(condition: () => boolean): Promise<void> {
    const lost = (): boolean =>
      this.link.failure !== null || this.link.ended || this.#control.giveUp || this.#status !== null;
    await this.#control.until(() => condition() || lost());
    if (!condition()) this.check();
  }

  /** Throws where nothing can be sent any more. */
  check(): void {
    if (this.link.failure !== null) throw this.link.failure;
    if (this.#control.giveUp) throw new MultifdError("CANCELLED", "the restore was given up");
    if (this.#status !== null) throw overEarly(this.#status);
    if (this.link.ended) throw closedEarly("end of file", { endOfFile: true });
  }
}

/** The destination's last word has come before it had everything, or is no good one. */
function overEarly(status: number): MultifdError {
  const what = status === 0 ? "is over before all of its RAM was there" : `failed (${status})`;
  const text = `the destination QEMU says that its load ${what}: see its own messages for the reason`;
  return new MultifdError("QEMU_FAILED", text, { status });
}
