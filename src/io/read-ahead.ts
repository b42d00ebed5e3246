/** A piece of file to read: `length` bytes at `offset`; slots must hold it padded to the O_DIRECT alignment. */
export interface Piece {
  readonly offset: number;
  readonly length: number;
}

/**
 * Reads pieces in order, as many ahead as there are slots, and yields each with its bytes. The bytes are
 * valid until the next step of the iteration: then their slot is read into again.
 */
export async function* readAhead<P extends Piece>(
  pieces: Iterable<P>,
  slots: readonly Uint8Array[],
  read: (into: Uint8Array, piece: P) => Promise<void>,
): AsyncGenerator<{ piece: P; bytes: Uint8Array }, void, undefined> {
  const source = pieces[Symbol.iterator]();
  const queue: { piece: P; slot: Uint8Array; reading: Promise<void> }[] = [];
  const start = (slot: Uint8Array): void => {
    const next = source.next();
    if (next.done) return;
    const reading = read(slot, next.value);
    // Awaited in order below; a later failure must not count as unhandled before its turn.
    reading.catch(() => undefined);
    queue.push({ piece: next.value, slot, reading });
  };

  for (const slot of slots) start(slot);
  try {
    for (let head = queue.shift(); head !== undefined; head = queue.shift()) {
      await head.reading;
      yield { piece: head.piece, bytes: head.slot.subarray(0, head.piece.length) };
      start(head.slot);
    }
  } finally {
    // A consumer that gives up early must not leave reads behind that write into reused memory.
    await Promise.allSettled(queue.map((entry) => entry.reading));
  }
}
