import type { RoundsProgress } from "../bench/rounds.ts";
import { formatDuration } from "./format.ts";
import { ProgressBar, type Terminal } from "./progress-bar.ts";

/** How far a benchmark is: one line that is drawn over itself on a terminal, else a line for each round. */
export class BenchProgress {
  readonly #stream: Terminal;
  readonly #bar: ProgressBar | null;
  #round = -1;

  constructor(stream: Terminal & { readonly isTTY?: boolean }) {
    this.#stream = stream;
    this.#bar = stream.isTTY ? new ProgressBar(stream) : null;
  }

  show(progress: RoundsProgress): void {
    if (this.#bar !== null) this.#bar.note(describeBenchProgress(progress));
    else if (progress.round > this.#round) this.#stream.write(`${describeBenchProgress(progress)}\n`);
    this.#round = progress.round;
  }

  end(): void {
    this.#bar?.clear();
  }
}

/** What is measured now, and how long all will take. */
export function describeBenchProgress({
  round,
  rounds,
  way,
  done,
  total,
  elapsedMs,
}: RoundsProgress): string {
  const which = round === 0 ? "warm-up" : `round ${round} of ${rounds}`;
  const left = done === 0 ? "" : `, ${formatDuration((elapsedMs / done) * (total - done))} left`;
  return `${which}: ${way} (${done} of ${total} done${left})`;
}
