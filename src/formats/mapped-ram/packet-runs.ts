import { PAGES_PER_PACKET } from "../migration/multifd-packet.ts";
import { PAGE_SIZE } from "../migration/wire.ts";
import type { Piece, Run } from "./ranges.ts";

const PACKET_DATA_BYTES = PAGES_PER_PACKET * PAGE_SIZE;

/**
 * What each multifd packet takes of a piece: runs as long as they can be, together no more than 128 pages. Pages are not looked at one
 * by one: there are 262144 in a GiB.
 */
export function packetRuns({ ranges }: Piece): Run[][] {
  const packets: { start: number; end: number }[][] = [];
  let packet: { start: number; end: number }[] = [];
  let room = 0;
  for (const run of ranges.flatMap(({ runs }) => runs)) {
    for (let start = run.start; start < run.end; ) {
      if (room === 0) {
        packet = [];
        packets.push(packet);
        room = PACKET_DATA_BYTES;
      }
      const end = Math.min(run.end, start + room);
      const last = packet.at(-1);
      if (last?.end === start) last.end = end;
      else packet.push({ start, end });
      room -= end - start;
      start = end;
    }
  }
  return packets;
}
