import type { ChannelFigures, ChannelName, ProgressEvent } from "./events.ts";

const INTERVAL_MS = 250;
/** The speed shown is that of the last two seconds: steady enough to read, quick enough to show a stall. */
const WINDOW_MS = 2000;

/** Turns byte counts into progress events, at most four a second. */
export class Meter {
  readonly #start = performance.now();
  readonly #samples: { at: number; bytes: number }[] = [{ at: this.#start, bytes: 0 }];
  #last = this.#start;

  get elapsedMs(): number {
    return Math.round(performance.now() - this.#start);
  }

  /** The next progress event, or null when it is too early for one. */
  sample(
    channels: readonly { channel: ChannelName; bytes: number }[],
    totalBytes?: number,
  ): ProgressEvent | null {
    const now = performance.now();
    if (now - this.#last < INTERVAL_MS) return null;
    this.#last = now;
    const bytes = channels.reduce((sum, channel) => sum + channel.bytes, 0);
    this.#samples.push({ at: now, bytes });
    while (this.#samples.length > 2 && now - (this.#samples[0]?.at ?? now) > WINDOW_MS) this.#samples.shift();
    const oldest = this.#samples[0] ?? { at: now, bytes };
    return {
      event: "progress",
      bytes,
      bytesPerSecond: perSecond(bytes - oldest.bytes, now - oldest.at),
      elapsedMs: this.elapsedMs,
      ...(totalBytes === undefined ? {} : { totalBytes }),
      channels,
    };
  }
}

export function figures(channel: ChannelName, bytes: number, activeMs: number): ChannelFigures {
  return { channel, bytes, bytesPerSecond: perSecond(bytes, activeMs) };
}

function perSecond(bytes: number, ms: number): number {
  return ms > 0 ? Math.round((bytes / ms) * 1000) : 0;
}
