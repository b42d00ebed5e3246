import { Buffer } from "node:buffer";
import { MultifdError } from "../../errors.ts";
import { MainWalker } from "./main-stream.ts";
import { MultifdWalker } from "./multifd-packet.ts";
import type { PacketSink } from "./packet-sink.ts";
import type { RecordSink } from "./record-sink.ts";
import type { ChannelSummary, Walker } from "./summary.ts";
import { MAIN_MAGIC, MULTIFD_MAGIC, protocolError } from "./wire.ts";

/** Which connection this is: main says it in its first 4 bytes, a multifd channel in its first 64. */
export type ChannelIdentity =
  | { readonly kind: "main" }
  | { readonly kind: "multifd"; readonly id: number; readonly uuid: string };

const MAGIC_BYTES = 4;

/** Who wants the pages of a connection, whichever kind it is. */
export interface PageSinks {
  readonly packets: PacketSink;
  readonly records: RecordSink;
}

/** Finds out what an accepted connection is and walks it accordingly. */
export class ChannelWalker implements Walker<ChannelSummary> {
  readonly #magic = Buffer.alloc(MAGIC_BYTES);
  readonly #sinks: PageSinks | null;
  #magicSeen = 0;
  #walker: MainWalker | MultifdWalker | null = null;

  constructor(sinks: PageSinks | null = null) {
    this.#sinks = sinks;
  }

  /** How many bytes the next thing of a channel that can be read lacks; of main, where all can be read, 0. */
  get wanted(): number {
    if (this.#walker === null) return MAGIC_BYTES - this.#magicSeen;
    return this.#walker instanceof MultifdWalker ? this.#walker.wanted : 0;
  }

  /** null until enough bytes have passed. */
  get identity(): ChannelIdentity | null {
    const walker = this.#walker;
    if (walker instanceof MainWalker) return { kind: "main" };
    if (walker === null || walker.id === null || walker.uuid === null) return null;
    return { kind: "multifd", id: walker.id, uuid: walker.uuid };
  }

  /** The walker of the main channel, for what it knows early; null when this is another channel or not known yet. */
  get main(): MainWalker | null {
    return this.#walker instanceof MainWalker ? this.#walker : null;
  }

  /** Throws PROTOCOL or TLS_PEER at the first bytes that no migration channel has. */
  push(chunk: Uint8Array): void {
    if (this.#walker !== null) {
      this.#walker.push(chunk);
      return;
    }
    const head = chunk.subarray(0, MAGIC_BYTES - this.#magicSeen);
    this.#magic.set(head, this.#magicSeen);
    this.#magicSeen += head.length;
    if (this.#magicSeen < MAGIC_BYTES) return;
    this.#walker = walkerFor(this.#magic, this.#sinks);
    this.#walker.push(this.#magic);
    this.#walker.push(chunk.subarray(head.length));
  }

  finish(): ChannelSummary {
    if (this.#walker !== null) return this.#walker.finish();
    const bytes = this.#magicSeen;
    throw protocolError(`ended after ${bytes} bytes, before saying what it is`, bytes);
  }
}

function walkerFor(magic: Buffer, sinks: PageSinks | null): MainWalker | MultifdWalker {
  const word = magic.readUInt32BE(0);
  if (word === MAIN_MAGIC) return new MainWalker(sinks?.records);
  if (word === MULTIFD_MAGIC) return new MultifdWalker(sinks?.packets);
  // A TLS record of type handshake (22), version 3.x.
  if (magic[0] === 0x16 && magic[1] === 0x03) {
    throw new MultifdError(
      "TLS_PEER",
      "the peer opened a TLS session: set the migration parameter tls-creds to an empty string and migrate again",
      { offset: 0 },
    );
  }
  const bytes = magic.toString("hex").replace(/..(?!$)/g, "$& ");
  throw protocolError(
    `begins with ${bytes}, which is neither 51 45 56 4d of a main channel nor 11 22 33 44 of a multifd channel`,
    0,
  );
}
