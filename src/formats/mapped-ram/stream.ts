import { MultifdError } from "../../errors.ts";
import { damaged } from "../image/damage.ts";
import { ByteInput, ResumableParser, type Steps } from "../migration/byte-input.ts";
import {
  MAPPED_RAM,
  SECTION_CONFIGURATION,
  STREAM_VERSION,
  walkConfiguration,
} from "../migration/configuration.ts";
import { MainFacts } from "../migration/main-facts.ts";
import { walkSections } from "../migration/sections.ts";
import { TailFinder } from "../migration/tail-finder.ts";
import { MAIN_MAGIC } from "../migration/wire.ts";
import type { Landmarks, MappedStream } from "./model.ts";
import { RamMap } from "./ram-map.ts";

/** Whether a file that begins with these bytes holds a migration stream of QEMU as it came. */
export function isQemuStream(head: Uint8Array): boolean {
  return head.length >= 4 && new DataView(head.buffer, head.byteOffset).getUint32(0) === MAIN_MAGIC;
}

/** Whether these bytes are those of a stream of which only the magic was not written. */
export function lacksMagic(head: Uint8Array): boolean {
  if (head.length < 9) return false;
  const view = new DataView(head.buffer, head.byteOffset);
  return (
    view.getUint32(0) === 0 &&
    view.getUint32(4) === STREAM_VERSION &&
    view.getUint8(8) === SECTION_CONFIGURATION
  );
}

/**
 * Walks QEMU's part of a mapped-ram file. Whoever reads the file asks `wanted` for the place to read at, since bitmaps
 * and pages are passed over, and pushes what stands there, up to where the stream ends or the file does.
 *
 * push() throws MultifdError NOT_AN_IMAGE (a stream without mapped-ram), UNSUPPORTED_VERSION, IMAGE_DAMAGED.
 */
export class MappedStreamWalker {
  readonly #base: number;
  readonly #input = new ByteInput();
  readonly #facts = new MainFacts();
  readonly #map = new RamMap(this.#input, this.#facts);
  readonly #tail = new TailFinder();
  readonly #parser = new ResumableParser(this.#input, this.#walk());
  /** RAM's sections were passed, or what stands behind the block list cannot be followed. */
  #pastRam = false;

  constructor(base: number) {
    this.#base = base;
    this.#input.jumpTo(base);
  }

  /** File offset of the byte to push next. */
  get wanted(): number {
    return this.#input.fed;
  }

  push(chunk: Uint8Array): void {
    try {
      this.#parser.push(chunk);
    } catch (error) {
      // What does not parse in a file is damage, not a peer's fault.
      if (error instanceof MultifdError && error.code === "PROTOCOL") {
        throw damaged("QEMU's stream", error.message, error.details, error);
      }
      throw error;
    }
  }

  /** To be called when all was pushed. Throws IMAGE_DAMAGED when the stream does not end here. */
  finish(): MappedStream {
    const facts = this.#facts;
    const end = this.wanted;
    if (!this.#pastRam || facts.machine === null) {
      throw damaged(`file offset ${end}`, "the file ends before QEMU's stream does", { offset: end });
    }
    const tail = this.#tail.finish();
    const undecided = [...facts.undecided];
    if (tail === null && this.#tail.endsWithBareEof) {
      undecided.push("the stream ends with an EOF byte but has no vmdescription (suppress-vmdesc)");
    } else if (tail === null) {
      throw damaged(`file offset ${end}`, "QEMU's stream does not end here with its vmdescription", {
        offset: end,
      });
    }
    return {
      base: this.#base,
      end,
      eofByte: tail?.eofByte ?? end - 1,
      machine: facts.machine,
      pageSize: facts.pageSize,
      capabilities: [...facts.capabilities],
      uuid: facts.uuid,
      blocks: this.#map.blocks,
      landmarks: this.#landmarks(),
      devices: tail?.devices ?? [],
      undecided,
    };
  }

  #landmarks(): Landmarks | null {
    const { capabilitiesAt: capabilities, ramId, ramEnd } = this.#facts;
    if (capabilities === null || ramId === null || ramEnd === null) return null;
    return { capabilities, ramId, ram: this.#map.sections };
  }

  *#walk(): Steps<never> {
    const facts = this.#facts;
    const unknown = yield* walkConfiguration(this.#input, facts);
    if (unknown !== null) throw unsupported(unknown);
    if (!facts.capabilities.includes(MAPPED_RAM)) {
      throw new MultifdError(
        "NOT_AN_IMAGE",
        "this is a migration stream of QEMU (5145564d) and no image: it was saved without the capability mapped-ram, and only QEMU can read it",
      );
    }
    const reason = yield* walkSections(this.#input, facts, this.#map);
    if (facts.ramBlocks === null) throw unsupported(reason ?? "it has no RAM");
    if (reason === null && facts.ramEnd === null) {
      const problem =
        "RAM has no END section, in which QEMU writes the bitmaps: it was saved with background-snapshot, which QEMU does not do rightly together with mapped-ram";
      throw damaged("QEMU's stream", problem);
    }
    if (reason !== null) facts.undecided.push(reason);
    this.#pastRam = true;
    for (;;) {
      this.#input.drain((bytes, offset) => this.#tail.scan(bytes, offset));
      yield;
    }
  }
}

function unsupported(reason: string): MultifdError {
  return new MultifdError(
    "UNSUPPORTED_VERSION",
    `QEMU's stream cannot be read: ${reason}; use a newer multifd-helper`,
  );
}
