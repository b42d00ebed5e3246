import type { Readable } from "node:stream";
import type { DrainedEvent } from "../control/events.ts";
import type { Log } from "../control/options.ts";
import { MultifdError } from "../errors.ts";

type Decision = "commit" | "abort";

/** Longer lines are no answer; what is kept of an unfinished line stays this small. */
const MAX_LINE = 256;

/**
 * The manager's side of `--hold`: lines `commit` or `abort`, each ended by a newline; the end of input means
 * abort unless `commit` was said. A `commit` may come before the drain (QEMU's `completed` does) and is kept; an
 * `abort` before the drain cancels at once, even after a `commit`. Once the answer is handed over nothing changes it.
 */
export class Hold {
  readonly #input: Readable;
  readonly #cancel: (reason: MultifdError) => void;
  readonly #log: Log;
  readonly #onCommit: () => void;
  #unfinished = "";
  #answer: Decision | undefined;
  #handedOver = false;
  #ask: ((decision: Decision) => void) | undefined;

  /** @param onCommit called when `commit` is read: from then on the manager need not live to see the end */
  constructor(
    input: Readable,
    cancel: (reason: MultifdError) => void,
    log: Log,
    onCommit: () => void = () => undefined,
  ) {
    this.#input = input;
    this.#cancel = cancel;
    this.#log = log;
    this.#onCommit = onCommit;
    input.setEncoding("utf8");
    input.on("data", (text: string) => this.#read(text));
    input.on("end", () => this.#ended());
    input.on("error", () => this.#ended());
  }

  /** To be given to save() as `confirm`. */
  readonly confirm = (_drained: DrainedEvent, signal: AbortSignal): Promise<Decision> =>
    new Promise((resolve, reject) => {
      const answer = (decision: Decision): void => {
        this.#handedOver = true;
        resolve(decision);
      };
      if (signal.aborted) return reject(signal.reason);
      if (this.#answer !== undefined) return answer(this.#answer);
      this.#ask = answer;
      signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    });

  /** Stops listening, so that an open stdin does not keep the process alive. */
  close(): void {
    this.#handedOver = true;
    this.#input.destroy();
  }

  #read(text: string): void {
    const lines = (this.#unfinished + text).split("\n");
    // A tail beyond the limit is cut but kept too long to be taken for an answer.
    this.#unfinished = (lines.pop() ?? "").slice(0, MAX_LINE + 1);
    for (const line of lines) this.#take(line.length > MAX_LINE ? "" : line.trim());
  }

  #take(line: string): void {
    if (line !== "commit" && line !== "abort") {
      this.#log.warn({}, "a line on stdin is neither commit nor abort: ignored");
    } else if (this.#handedOver) {
      this.#log.warn({ line }, "an answer on stdin came too late: ignored");
    } else {
      this.#decide(line, "the manager answered abort");
    }
  }

  #ended(): void {
    if (this.#answer !== undefined || this.#handedOver) return;
    this.#decide("abort", "the manager closed stdin without answering commit");
  }

  #decide(decision: Decision, reason: string): void {
    if (this.#answer === "abort") return;
    this.#answer = decision;
    if (decision === "commit") this.#onCommit();
    if (this.#ask !== undefined) this.#ask(decision);
    else if (decision === "abort") {
      this.#cancel(new MultifdError("ABORTED", `${reason}; the image is discarded`));
    }
  }
}
