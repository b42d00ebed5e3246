import { RANGE_BYTES } from "../../formats/mapped-ram/model.ts";
import type { Piece } from "../../formats/mapped-ram/ranges.ts";
import { PAGE_SIZE, protocolError } from "../../formats/migration/wire.ts";
import { readAt } from "../../io/file-io.ts";
import { CachedReader } from "../../io/libc.ts";
import { alignedBuffer } from "../../io/slab-arena.ts";
import type { HugePages } from "./huge-pages.ts";
import type { PageMap } from "./page-map.ts";
import type { Paging } from "./paging.ts";

const PAGES_PER_RANGE: number = RANGE_BYTES / PAGE_SIZE;

/** A page that is waited for. */
interface Wanted {
  readonly page: number;
  /** performance.now() when it was asked for. */
  readonly since: number;
}

/** Where a range is read to. */
interface Room {
  readonly bytes: Uint8Array;
  readonly cached: CachedReader;
}

/**
 * Answers the destination's requests for pages of 4096 bytes, at once where the page cache has them. A page is sent only when
 * all of its checksummed range was read and fits, and the rest of that range follows it: the guest is likely to want it next.
 */
export class FaultServer {
  readonly #paging: Paging;
  readonly #huge: HugePages;
  /** Ranges that are being read from disk, and which of their pages are waited for. */
  readonly #reading = new Map<string, Wanted[]>();
  readonly #rooms: Room[] = [];

  /** @param huge in the middle of whose pages nothing may be sent */
  constructor(paging: Paging, huge: HugePages) {
    this.#paging = paging;
    this.#huge = huge;
  }

  /**
   * Sends a page, unless it was sent.
   * @param since performance.now() when it was asked for
   * @throws MultifdError IMAGE_DAMAGED
   */
  serve(block: number, page: number, since: number): void {
    const { map, sent } = this.#paging;
    if (sent.has(block, page)) return;
    const range = Math.floor(page / PAGES_PER_RANGE);
    const piece = map.pieceOf(block, range);
    if (piece === null) map.checkEmpty(block, range);
    if (piece === null || !map.holds(block, page)) this.#sendZero(block, { page, since });
    else this.#fetch(block, range, piece, { page, since });
  }

  #fetch(block: number, range: number, piece: Piece, one: Wanted): void {
    const { link, fd } = this.#paging;
    const key = `${block}:${range}`;
    const waiting = this.#reading.get(key);
    if (waiting !== undefined) {
      waiting.push(one);
      return;
    }
    const room = this.#rooms.pop() ?? newRoom();
    const wanted = [one];
    if (room.cached.read(fd, piece.length, piece.offset)) {
      this.#answer(block, piece, room, wanted);
      return;
    }
    this.#reading.set(key, wanted);
    readAt(fd, room.bytes.subarray(0, piece.length), piece.offset)
      .finally(() => this.#reading.delete(key))
      .then(() => this.#huge.between(() => this.#answer(block, piece, room, wanted)))
      .catch((error: unknown) => link.fail(error));
  }

  #answer(block: number, piece: Piece, room: Room, wanted: readonly Wanted[]): void {
    const { map, sent, sections, board, pace, noteSent } = this.#paging;
    const { bytes } = room;
    map.check(block, piece, bytes);
    const dataOf = dataIn(bytes, piece);
    const { name } = map.block(block);
    for (const { page, since } of wanted) {
      // The background may have been quicker while the disk was read.
      if (sent.has(block, page)) continue;
      sent.add(block, page);
      board.addOnDemand(1);
      this.#send(sections.whole(name, [page * PAGE_SIZE], dataOf), since);
    }
    noteSent();
    // Not before other requests that have come are answered.
    if (pace.moves) setImmediate(() => this.#huge.between(() => this.#sendOthers(block, piece, room)));
    else this.#rooms.push(room);
  }

  /** What else its range has: the guest is likely to want it next. */
  #sendOthers(block: number, piece: Piece, room: Room): void {
    const { map, sent, sections, board, pace, noteSent } = this.#paging;
    const others = this.#unsent(block, piece);
    if (others.length > 0) {
      for (const address of others) sent.add(block, address / PAGE_SIZE);
      board.addInBackground(others.length);
      pace.sent(others.length * PAGE_SIZE);
      this.#send(sections.whole(map.block(block).name, others, dataIn(room.bytes, piece)), null);
      noteSent();
    }
    this.#rooms.push(room);
  }

  /** @param since when somebody began to wait for it; null: nobody does */
  #send(section: Uint8Array, since: number | null): void {
    const { link, board, pace } = this.#paging;
    const taken = (): void => {
      if (since === null) return;
      const ms = performance.now() - since;
      board.times.add(ms * 1000);
      pace.served(ms);
    };
    // A connection that breaks fails the link, which is being watched.
    link.send([section]).then(taken, () => undefined);
  }

  /** Addresses of the pages of a piece that were not sent. */
  #unsent(block: number, { ranges }: Piece): number[] {
    const { sent } = this.#paging;
    const addresses: number[] = [];
    for (const { runs } of ranges) {
      for (const { start, end } of runs) {
        for (let at = start; at < end; at += PAGE_SIZE) {
          if (!sent.has(block, at / PAGE_SIZE)) addresses.push(at);
        }
      }
    }
    return addresses;
  }

  #sendZero(block: number, { page, since }: Wanted): void {
    const { map, sent, sections, board } = this.#paging;
    sent.add(block, page);
    board.addZero(1);
    this.#send(
      sections.whole(map.block(block).name, [page * PAGE_SIZE], () => null),
      since,
    );
  }
}

/** A request is for one of the destination's own pages. Throws PROTOCOL. */
export function checkRequest(
  map: PageMap,
  block: number,
  hostPage: number,
  offset: number,
  length: number,
): void {
  const fits = length === hostPage && offset % hostPage === 0;
  if (fits && offset + length <= map.block(block).usedLength) return;
  throw protocolError(
    `the destination asks for ${length} bytes of RAMBlock "${map.block(block).name}"`,
    offset,
  );
}

/** The data of a page by its address, where a piece was read to. */
function dataIn(bytes: Uint8Array, { start }: Piece): (address: number) => Uint8Array {
  return (address) => bytes.subarray(address - start, address - start + PAGE_SIZE);
}

function newRoom(): Room {
  const bytes = alignedBuffer(RANGE_BYTES);
  return { bytes, cached: new CachedReader(bytes) };
}
