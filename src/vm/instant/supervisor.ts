import { setTimeout as sleep } from "node:timers/promises";
import { cancelled, throwIfAborted, whenAborted } from "../../control/cancellation.ts";
import type { CompletedEvent } from "../../control/events.ts";
import { SILENT } from "../../control/silent-log.ts";
import type { MultifdError } from "../../errors.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import type { QemuWatch } from "../qemu-watch.ts";
import { reasonFor } from "../restore/incoming.ts";
import type { DataPlaneEnd } from "./data-plane.ts";
import type { DataPlanes } from "./data-planes.ts";
import { listenAgain, overMonitor } from "./listen-again.ts";
import type { ServingOptions } from "./options.ts";
import { damaged, endedEarly, leftWaiting, notLetRun, unexplained } from "./outcomes.ts";

/** A QEMU that gets its RAM. */
export interface Destination {
  readonly monitor: Monitor;
  readonly qemu: QemuWatch;
  /** What only it tells, for its data planes. */
  readonly args: readonly string[];
  /** Its guest runs already, and waits for the rest. */
  readonly resume: boolean;
  /** Called once, when QEMU was told to run the guest or goes on with it. What it throws ends the serving. */
  readonly onRunning: () => Promise<void>;
}

/** Restarts in a row of which none has sent a page. */
const MOST_FRUITLESS = 5;
const ANSWER_MS = 1000;
const POLL_MS = 50;
const ENDING_MS = 500;
const LEAVING_MS = 5000;

/**
 * Sees to it that a VM gets all its RAM: has a data plane serve it, and another one when that is gone or hangs. The guest
 * stands still meanwhile where it needs a page, and is otherwise unharmed: the image has everything that was not sent yet.
 * QEMU listens at the socket of the first one.
 * @throws MultifdError of the data plane, QEMU_FAILED, INTERNAL, CANCELLED; once the guest was told to run, the message
 *   says what became of it and details.ran is true
 */
export async function superviseInstant(
  planes: DataPlanes,
  destination: Destination,
  options: Pick<ServingOptions, "signal" | "log">,
): Promise<CompletedEvent> {
  const stopListening = whenAborted(options.signal, () => void planes.stop());
  try {
    return await new Supervisor(planes, destination, options).serve();
  } finally {
    stopListening();
  }
}

class Supervisor {
  readonly #planes: DataPlanes;
  readonly #destination: Destination;
  readonly #options: Pick<ServingOptions, "signal" | "log">;
  #ran: boolean;
  /** Of onRunning(). */
  #running: Promise<void> | null = null;
  #refusal: unknown = null;

  constructor(planes: DataPlanes, destination: Destination, options: Pick<ServingOptions, "signal" | "log">) {
    this.#planes = planes;
    this.#destination = destination;
    this.#options = options;
    this.#ran = destination.resume;
    planes.onRunning = () => this.#begin();
  }

  async serve(): Promise<CompletedEvent> {
    const { args, resume } = this.#destination;
    const { log = SILENT, signal } = this.#options;
    for (let number = 0; ; number++) {
      throwIfAborted(signal);
      const end = await this.#planes.run(number, resume || number > 0, args);
      await this.#running;
      if ("completed" in end && (await this.#hasAll())) return this.#planes.whole(end.completed);
      const failure = await this.#judge(
        "completed" in end ? { why: "ended before QEMU had all of it" } : end,
      );
      const text = `${failure.message}; the VM waits for its RAM, and another process goes on`;
      log.warn({ code: failure.code }, text);
      if ((await this.#listenAgain(number + 1)) === "completed") return this.#planes.completedUnsaid();
    }
  }

  #begin(): void {
    this.#ran = true;
    this.#running ??= this.#destination.onRunning().catch(async (error: unknown) => {
      this.#refusal = error;
      await this.#planes.stop();
    });
  }

  /** What follows a data plane that has not finished: its failure is answered when another one is to go on, else thrown. */
  async #judge(end: Exclude<DataPlaneEnd, { completed: unknown }>): Promise<MultifdError> {
    const { signal } = this.#options;
    const { image, fruitless } = this.#planes;
    const { monitor, qemu } = this.#destination;
    const failure = "failure" in end ? end.failure : unexplained(end.why);
    if (!(await this.#hasRun(failure))) {
      throw signal?.aborted ? cancelled(signal) : await reasonFor(failure, monitor, qemu);
    }
    if (failure.exitStatus === 3 && (await qemu.endsWithin(ENDING_MS))) throw endedEarly(failure);
    if (this.#refusal !== null) throw notLetRun(this.#refusal, image, monitor);
    if (signal?.aborted) throw leftWaiting(cancelled(signal), image, monitor);
    if (failure.code === "IMAGE_DAMAGED") throw damaged(failure, image, monitor);
    if (fruitless > MOST_FRUITLESS) throw leftWaiting(failure, image, monitor);
    return failure;
  }

  /** Whether the guest was told to run: what a data plane that was killed could not say, QEMU's migration says. */
  async #hasRun({ details }: MultifdError): Promise<boolean> {
    if (this.#ran || typeof details.ran === "boolean") return this.#ran || details.ran === true;
    const { qemu } = this.#destination;
    const deadline = Date.now() + ENDING_MS;
    for (;;) {
      const status = await this.#migration();
      this.#ran = status === null ? !qemu.ended : /^postcopy-|^completed$/.test(status);
      if (this.#ran || status === "failed" || Date.now() > deadline) return this.#ran;
      await sleep(POLL_MS);
    }
  }

  /** Whether QEMU, which was sent everything, calls it completed; false: its connection broke before. */
  async #hasAll(): Promise<boolean> {
    const { monitor, qemu } = this.#destination;
    for (;;) {
      throwIfAborted(this.#options.signal);
      const status = await this.#migration();
      if (status === "completed") return true;
      if (status === "postcopy-paused" || qemu.ended) return false;
      if (status === "failed") throw await reasonFor(endedEarly(undefined), monitor, qemu);
      await sleep(POLL_MS);
    }
  }

  async #listenAgain(number: number): Promise<"listening" | "completed"> {
    const { monitor, qemu } = this.#destination;
    try {
      await listenAgain(overMonitor(monitor), this.#planes.socket(number));
      return "listening";
    } catch (error) {
      // One that is ending closes its connections and its monitor a while before it is gone.
      if (await qemu.endsWithin(LEAVING_MS)) throw endedEarly(error);
      if ((await this.#migration()) === "completed") return "completed";
      throw leftWaiting(error, this.#planes.image, monitor);
    }
  }

  /** Status of query-migrate; null where QEMU does not answer. */
  async #migration(): Promise<string | null> {
    const { monitor } = this.#destination;
    const answer = monitor.execute("query-migrate", undefined, { timeoutMs: ANSWER_MS });
    return await answer.then(
      (info) => (info as { status?: string }).status ?? "none",
      () => null,
    );
  }
}
