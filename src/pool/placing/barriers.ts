import { MultifdError } from "../../errors.ts";
import type { ControlBlock } from "../control-block.ts";
import type { PageWriter } from "./page-writer.ts";

/** Where a connection comes to barrier number `count`, from 1; resolves when it may go on. */
export interface Barriers {
  arriveAt(count: number): Promise<void>;
}

/**
 * Where a connection waits for the others. What lies between two barriers is an epoch: a page that was sent again belongs
 * to a later one, on whichever channel, so that nothing of an epoch may be written before all of the one before it is
 * (multifd_recv_sync_main of QEMU 7.2.22 and 10.0.2 makes the loader wait in the same way).
 *
 * Main waits, too, as the loader does: a SYNC is on its way on every channel before main's barrier is.
 */
export class SharedBarriers implements Barriers {
  readonly #connection: number;
  readonly #control: ControlBlock;
  readonly #writer: PageWriter;

  constructor(connection: number, control: ControlBlock, writer: PageWriter) {
    this.#connection = connection;
    this.#control = control;
    this.#writer = writer;
  }

  /** Resolves when all others have come there, too. The thread goes on with other connections meanwhile. */
  async arriveAt(count: number): Promise<void> {
    await this.#writer.written();
    this.#control.arriveAtBarrier(this.#connection, count);
    await this.#control.until(() => this.#control.giveUp || this.#control.barrierOpen(count));
    if (this.#control.giveUp) throw new MultifdError("CANCELLED", "the run was given up");
  }
}
