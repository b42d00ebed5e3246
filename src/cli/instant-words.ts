import type { CompletedEvent } from "../control/events.ts";
import type { InstantFigures } from "../control/instant/options.ts";
import { formatBytes, formatDuration } from "./format.ts";

const PAGE_BYTES = 4096;

/** 85 -> "85 µs", 2300 -> "2.3 ms", 1 500 000 -> "1.5 s". */
export function formatMicros(micros: number): string {
  if (micros < 999.5) return `${Math.round(micros)} µs`;
  return micros < 99_950
    ? `${(micros / 1000).toFixed(1)} ms`
    : micros < 999_500
      ? `${Math.round(micros / 1000)} ms`
      : formatDuration(micros / 1000);
}

/** The bar's text behind its bar. */
export function describeInstant(figures: InstantFigures): string {
  const { pagesOnDemand, pagesInBackground } = figures;
  return `${formatRan(figures)}${pagesOnDemand} pages on demand, ${pagesInBackground} in background  ${faults(figures)}`;
}

function formatRan({ runningMs }: InstantFigures): string {
  return runningMs === null ? "" : `ran after ${formatMicros(runningMs * 1000)}  `;
}

function faults({ faults: count, fault99Us, faultLongestUs }: InstantFigures): string {
  if (count === 0) return "no faults";
  return `faults: 99 % within ${formatMicros(fault99Us)}, longest ${formatMicros(faultLongestUs)}`;
}

/** How an instant restore ended, without its last dot. @param verb "Restored", "Delivered" … */
export function instantSentence(verb: string, { elapsedMs, image, instant }: CompletedEvent): string {
  const begin = `${verb} from ${image.path} in ${formatDuration(elapsedMs)}`;
  if (instant === undefined) return begin;
  const { runningMs, pagesSent, pagesOnDemand, pagesInBackground } = instant;
  const ran = runningMs === null ? "" : `, the VM's start after ${formatMicros(runningMs * 1000)}`;
  const pages = `${pagesOnDemand} pages on demand and ${pagesInBackground} in the background`;
  return `${begin}${ran}: ${formatBytes(pagesSent * PAGE_BYTES)}, ${pages}; ${faults(instant)}`;
}
