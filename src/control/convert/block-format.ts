import { MultifdError } from "../../errors.ts";
import type { SealEvidence } from "../../formats/image/model.ts";
import type { MappedBlock } from "../../formats/mapped-ram/model.ts";
import { flush, shrink } from "../../io/image-target/durability.ts";
import type { IntakeTask, PlaceTask, TakenIn } from "../../pool/messages.ts";
import { type RamMemory, RamTables, reserveRamMemory } from "../../pool/placing/ram-tables.ts";
import { newRegionBits } from "../../pool/placing/regions.ts";
import type { ImageFacts } from "../events.ts";
import { punchAbsent } from "../mapped-ram/absent.ts";
import { type FormatParts, type SaveFormat, savedFacts } from "../save-format.ts";
import type { Streams } from "../streams.ts";

/** The memory of one RAMBlock and nothing else, with holes where it is zero. */
export class BlockFormat implements SaveFormat {
  readonly barriers = true;
  readonly #parts: FormatParts;
  readonly #name: string;
  readonly #regions: SharedArrayBuffer = newRegionBits();
  readonly #ram: RamMemory = reserveRamMemory("presence");

  constructor(parts: FormatParts, name: string) {
    this.#parts = parts;
    this.#name = name;
  }

  async prepare(): Promise<void> {
    const { target, options } = this.#parts;
    if (target.capacity !== null) {
      const text = `${options.image} is a block device: a RAMBlock is written to files only`;
      throw new MultifdError("TARGET_REFUSED", text, {});
    }
    shrink(target.fd, target.base);
    await flush(target.fd);
  }

  task(common: IntakeTask): PlaceTask {
    return {
      ...common,
      ...{ ram: this.#ram, regions: this.#regions, work: { kind: "block", name: this.#name } },
    };
  }

  async seal(_: readonly TakenIn[], streams: Streams, evidence: SealEvidence): Promise<ImageFacts> {
    const { options, target, identity } = this.#parts;
    const ram = new RamTables(this.#ram);
    const number = ram.numberOf(this.#name) as number;
    const { usedLength: bytes } = ram.blocks[number] as MappedBlock;
    await punchAbsent(target.fd, ram, number, "write");
    shrink(target.fd, target.base + bytes);
    await flush(target.fd);
    const metadata = this.#parts.describe(streams, evidence);
    return savedFacts(options.image, "raw", identity, metadata, { bytes, directIo: target.directIo });
  }
}
