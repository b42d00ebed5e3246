import type { Channel } from "../formats/image/model.ts";
import type { ChannelSummary, MainSummary, MultifdSummary } from "../formats/migration/summary.ts";
import type { TakenIn } from "../pool/messages.ts";
import type { ChannelFigures } from "./events.ts";
import { figures } from "./meter.ts";

/** The walked streams of a run, sorted out. */
export interface Streams {
  readonly main: MainSummary;
  /** By id. */
  readonly multifd: readonly MultifdSummary[];
}

/** Sorts walked connections into main and channels; null without main. */
export function sortStreams(summaries: readonly (MainSummary | MultifdSummary)[]): Streams | null {
  const main = summaries.find((summary) => summary.kind === "main");
  const multifd = summaries.filter((summary) => summary.kind === "multifd").sort((a, b) => a.id - b.id);
  return main === undefined ? null : { main, multifd };
}

/** The points of a stream at which a restore waits for other channels. */
export function waypoints(summary: ChannelSummary): Pick<Channel, "marks" | "tail"> {
  return summary.kind === "main"
    ? { marks: Float64Array.from(summary.barriers), tail: summary.ramEnd ?? summary.eofByte }
    : { marks: Float64Array.from(summary.syncEnds), tail: null };
}

/** Main first, then the channels by id. */
export function drainedFigures(drained: readonly TakenIn[]): ChannelFigures[] {
  return drained
    .map(({ summary, activeMs }) =>
      figures(summary.kind === "main" ? "main" : summary.id, summary.bytes, activeMs),
    )
    .sort((a, b) => rank(a.channel) - rank(b.channel));
}

function rank(channel: "main" | number): number {
  return channel === "main" ? -1 : channel;
}
