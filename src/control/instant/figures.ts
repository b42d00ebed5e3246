import type { Board } from "../../pool/paging/board.ts";
import type { InstantFigures } from "./options.ts";

/** @param presentPages of each block of the image */
export function instantFigures(
  board: Board,
  presentPages: readonly number[],
  resumed: boolean,
): InstantFigures {
  const { times } = board;
  return {
    runningMs: board.ran && !resumed ? board.runningMs : null,
    pages: presentPages.reduce((sum, pages) => sum + pages, 0),
    pagesSent: board.sent,
    pagesOnDemand: board.onDemand,
    pagesInBackground: board.inBackground,
    zeroPages: board.zero,
    faults: times.count,
    faultMedianUs: times.quantile(0.5),
    fault99Us: times.quantile(0.99),
    faultLongestUs: times.longest,
  };
}
