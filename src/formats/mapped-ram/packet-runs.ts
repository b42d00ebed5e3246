import { PAGES_PER_PACKET } from "../migration/multifd-packet.ts";
import { PAGE_SIZE } from "../migration/wire.ts";
import type { Piece, Run } from "./ranges.ts";

const PACKET_DATA_BYTES = PAGES_PER_PACKET * PAGE_SIZE;

/**
 * What each multifd packet takes of a piece: runs as long as they can be, together no more than 128 pages. Pages are not looked at one
 * by one: there are 262144 in a GiB.
 */
export function packetRuns({ ranges }: Piece): Run[][] {
  const packets: Run[][] = [];
  let room = 0;
  let start = 0;
  let end = 0;
  const put = (): void => {
    if (end > start) (packets.at(-1) as Run[]).push({ start, end });
  };
  for (const { runs } of ranges) {
    for (const run of runs) {
      for (let at = run.start; at < run.end; ) {
        if (at !== end || room === 0) {
          put();
          start = at;
        }
        if (room === 0) {
          packets.push([]);
          room = PACKET_DATA_BYTES;
        }
        end = Math.min(run.end, at + room);
        room -= end - at;
        at = end;
      }
    }
  }
  put();
  return packets;
}
