import { type MappedBlock, RANGE_BYTES } from "../../formats/mapped-ram/model.ts";
import { PAGE_SIZE } from "../../formats/migration/wire.ts";
import { readAt } from "../../io/file-io.ts";
import { alignedBuffer } from "../../io/slab-arena.ts";
import type { Paging } from "./paging.ts";
import type { SentPages } from "./sent-pages.ts";

/**
 * Sends the pages of blocks that lie in huge pages at the destination, which puts such a page to its place as a whole: all
 * its 4096-byte pages, zeros included, must come one behind the other, in order, and nothing of another page between them.
 */
export class HugePages {
  readonly #paging: Paging;
  readonly #bytes: Uint8Array = alignedBuffer(RANGE_BYTES);
  /** Those that are being sent, one behind the other. */
  #queue: Promise<void> = Promise.resolve();
  #waiting = 0;
  /** What must not be sent in the middle of one. */
  #held: (() => void)[] = [];

  constructor(paging: Paging) {
    this.#paging = paging;
  }

  /** Runs this between two huge pages; at once where none is under way. What it throws is the link's failure. */
  between(send: () => void): void {
    if (this.#waiting > 0) this.#held.push(send);
    else send();
  }

  /**
   * Sends the huge page that begins there, unless it was sent.
   * @param since performance.now() when it was asked for; null: nobody waits for it
   */
  serve(block: number, start: number, length: number, since: number | null): Promise<void> {
    const { map, link } = this.#paging;
    this.#waiting++;
    this.#queue = this.#queue
      .then(() => this.#send(block, start, Math.min(length, map.block(block).usedLength - start), since))
      .catch((error: unknown) => link.fail(error))
      .finally(() => this.#release());
    return this.#queue;
  }

  #release(): void {
    this.#waiting--;
    const held = this.#held;
    this.#held = [];
    try {
      for (const send of held) send();
    } catch (error) {
      this.#paging.link.fail(error);
    }
  }

  async #send(block: number, start: number, length: number, since: number | null): Promise<void> {
    const { sent, link, board, noteSent } = this.#paging;
    if (sent.has(block, start / PAGE_SIZE) || link.failure !== null) return;
    // A zero page is a page of the guest, too: it must come with the others.
    for (let at = start; at < start + length; at += PAGE_SIZE) sent.add(block, at / PAGE_SIZE);
    let held = 0;
    for (let at = start; at < start + length; at += RANGE_BYTES)
      held += await this.#sendRange(block, at, start + length);
    const zeros = length / PAGE_SIZE - held;
    board.addZero(zeros);
    if (since === null) board.addInBackground(held);
    else {
      board.addOnDemand(held);
      board.times.add((performance.now() - since) * 1000);
    }
    noteSent();
  }

  /** @returns how many pages of the range the image holds */
  async #sendRange(block: number, start: number, end: number): Promise<number> {
    const { map, sections, link, fd } = this.#paging;
    const range = start / RANGE_BYTES;
    const piece = map.pieceOf(block, range);
    if (piece === null) map.checkEmpty(block, range);
    else {
      await readAt(fd, this.#bytes.subarray(0, piece.length), piece.offset);
      map.check(block, piece, this.#bytes);
    }
    const addresses: number[] = [];
    let held = 0;
    for (let at = start; at < Math.min(start + RANGE_BYTES, end); at += PAGE_SIZE) {
      addresses.push(at);
      if (map.holds(block, at / PAGE_SIZE)) held++;
    }
    const from = piece?.start ?? 0;
    const section = sections.whole(map.block(block).name, addresses, (address) =>
      map.holds(block, address / PAGE_SIZE)
        ? this.#bytes.subarray(address - from, address - from + PAGE_SIZE)
        : null,
    );
    await link.send([section]);
    return held;
  }
}

/** The huge pages of a block that hold pages which were not sent. */
export function* hugePagesOf(
  { usedLength }: MappedBlock,
  block: number,
  hostPage: number,
  sent: SentPages,
): Generator<number, void, undefined> {
  for (let start = 0; start < usedLength; start += hostPage) {
    if (sent.anyMissing(block, start, Math.min(hostPage, usedLength - start))) yield start;
  }
}
