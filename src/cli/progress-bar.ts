import type { ProgressEvent } from "../control/events.ts";
import { formatBytes, formatDuration, formatRate } from "./format.ts";
import { describeInstant } from "./instant-words.ts";

/** What of a terminal's stream the bar uses. */
export interface Terminal {
  readonly columns?: number;
  write(text: string): unknown;
}

const BAR_CELLS = 24;
const ERASE_LINE = "\r\u001b[K";

/** One line at the bottom of a terminal that is drawn over itself. */
export class ProgressBar {
  readonly #terminal: Terminal;
  #drawn = false;

  constructor(terminal: Terminal) {
    this.#terminal = terminal;
  }

  note(text: string): void {
    // A line longer than the terminal would wrap, and then could not be erased.
    const width = (this.#terminal.columns ?? 80) - 1;
    this.#terminal.write(`${ERASE_LINE}${text.slice(0, width)}`);
    this.#drawn = true;
  }

  show(progress: ProgressEvent): void {
    this.note(describeProgress(progress));
  }

  clear(): void {
    if (!this.#drawn) return;
    this.#terminal.write(ERASE_LINE);
    this.#drawn = false;
  }
}

/** The bar's text: with a bar, a percentage and the time left where the total is known. */
export function describeProgress(progress: ProgressEvent): string {
  const { bytes, bytesPerSecond, elapsedMs, totalBytes, percent, secondsLeft, instant } = progress;
  const moved = `${formatBytes(bytes)}  ${formatRate(bytesPerSecond)}`;
  if (percent !== undefined) {
    const left = secondsLeft === undefined ? "" : `  ${formatDuration(secondsLeft * 1000)} left`;
    const how = instant === undefined ? `${moved}${left}` : describeInstant(instant);
    return `${drawn(percent / 100)}  ${how}`;
  }
  if (totalBytes === undefined || totalBytes === 0) return `${moved}  ${formatDuration(elapsedMs)}`;
  const share = Math.min(bytes / totalBytes, 1);
  const left =
    bytesPerSecond > 0 ? `  ${formatDuration(((totalBytes - bytes) / bytesPerSecond) * 1000)} left` : "";
  return `${drawn(share)}  ${moved}${left}`;
}

function drawn(share: number): string {
  const filled = Math.floor(share * BAR_CELLS);
  return `[${"#".repeat(filled)}${".".repeat(BAR_CELLS - filled)}] ${Math.floor(share * 100)} %`;
}
