import type { Buffer } from "node:buffer";
import { once } from "node:events";
import net from "node:net";
import { setImmediate as nextTurn, setTimeout as sleep } from "node:timers/promises";
import { Connection } from "../../src/channels/handover.ts";
import type { WriteAt } from "../../src/io/file-io.ts";
import { ControlBlock } from "../../src/pool/control-block.ts";
import type { Placed, PlaceTask } from "../../src/pool/messages.ts";
import { placeChannel } from "../../workers/place.ts";
import { type Random, seededRandom } from "../support/random.ts";

const LOOK_MS = 2;
/** Only a hang takes as long. */
const PATIENCE_MS = 20_000;

/** What a run of all connections came to. */
export type Ending = readonly PromiseSettledResult<Placed>[];

/** A connection: its peer's end, and ours as a save hands it to a worker. */
interface Pair {
  readonly peer: net.Socket;
  readonly ours: Connection;
}

/** Where peers and readers meet. */
export class MeetingPlace {
  readonly #server = net.createServer({ pauseOnConnect: true, allowHalfOpen: true });
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  async open(): Promise<void> {
    await once(this.#server.listen(this.#path), "listening");
  }

  close(): void {
    this.#server.close();
  }

  async pair(): Promise<Pair> {
    const accepted = once(this.#server, "connection");
    const peer = net.connect({ path: this.#path, allowHalfOpen: true });
    peer.on("error", () => undefined).resume();
    const [socket] = (await accepted) as [net.Socket];
    return { peer, ours: Connection.detach(socket) };
  }
}

/**
 * Sends each stream over a connection of its own to the code that places it, all in this thread, and ends as a save does: the
 * first failure ends all, and so does a wait that cannot end. Throws when a connection hangs all the same.
 */
export async function placeAll(
  random: Random,
  place: MeetingPlace,
  streams: readonly Buffer[],
  makeTask: (connection: number, socketFd: number, control: ControlBlock) => PlaceTask,
  write: WriteAt,
): Promise<Ending> {
  const control = new ControlBlock();
  const pairs: Pair[] = [];
  for (const _ of streams) pairs.push(await place.pair());
  control.connections = pairs.length;
  control.setPrepared();
  control.setParties(pairs.length);
  const ended = new Set<number>();
  const giveUp = (): void => {
    control.setGiveUp();
    for (const { ours } of pairs) ours.kill();
  };
  const placing = pairs.map(async ({ ours }, connection) => {
    try {
      const disk = { write, cachesShortRuns: false };
      return await placeChannel(makeTask(connection, ours.workerFd, control), disk);
    } catch (error) {
      giveUp();
      throw error;
    } finally {
      ended.add(connection);
    }
  });
  const watch = setInterval(() => {
    if (waitsForEver(control, ended)) giveUp();
  }, LOOK_MS);
  const sending = pairs.map(({ peer }, n) =>
    send(seededRandom(random.integer(2 ** 32)), peer, streams[n] as Buffer),
  );
  const patience = new AbortController();
  const late = sleep(PATIENCE_MS, null, patience).catch(() => null);
  const ending = await Promise.race([Promise.allSettled(placing), late]);
  patience.abort();
  clearInterval(watch);
  for (const { peer } of pairs) peer.destroy();
  for (const [n, { ours }] of pairs.entries()) ours.close(control.isTaken(n));
  await Promise.all(sending);
  if (ending === null)
    throw new Error(`a connection hangs: only ${[...ended]} of ${pairs.length} have ended`);
  return ending;
}

/** Somebody waits at a barrier that another has ended before, or for RAMBlocks that main has not listed. */
function waitsForEver(control: ControlBlock, ended: ReadonlySet<number>): boolean {
  const all = Array.from({ length: control.connections }, (_, connection) => connection);
  const furthest = Math.max(...all.map((connection) => control.barriersReached(connection)));
  const early = [...ended].some((connection) => control.barriersReached(connection) < furthest);
  return early || (ended.has(0) && !control.laidOut);
}

/** In pieces of any length; whoever reads may end at any time. */
async function send(random: Random, peer: net.Socket, stream: Buffer): Promise<void> {
  const most = random.pick([100, 5000, 100_000, 2 ** 20]);
  for (let at = 0; at < stream.length && !peer.destroyed; ) {
    const length = 1 + random.integer(at > 20_000 ? Math.max(most, 5000) : most);
    peer.write(stream.subarray(at, at + length));
    at += length;
    if (random.integer(4) === 0) await nextTurn();
  }
  if (!peer.destroyed) peer.end();
}
