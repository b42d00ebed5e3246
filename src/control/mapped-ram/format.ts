import type { SealEvidence } from "../../formats/image/model.ts";
import { MAPPED_RAM } from "../../formats/migration/configuration.ts";
import type { IntakeTask, Placed, PlacedMain, PlaceTask, TakenIn } from "../../pool/messages.ts";
import { type RamMemory, RamTables, reserveRamMemory } from "../../pool/placing/ram-tables.ts";
import { newRegionBits } from "../../pool/placing/regions.ts";
import type { ImageFacts } from "../events.ts";
import { type FormatParts, type SaveFormat, savedFacts } from "../save-format.ts";
import type { Streams } from "../streams.ts";
import { invalidateMapped, sealPlaced } from "./seal-placed.ts";

/** `--format mapped-ram`: QEMU's own format, made from the channels of any QEMU while they come. */
export class MappedFormat implements SaveFormat {
  readonly barriers = true;
  readonly #parts: FormatParts;
  readonly #regions: SharedArrayBuffer = newRegionBits();
  readonly #ram: RamMemory;

  constructor(parts: FormatParts) {
    this.#parts = parts;
    this.#ram = reserveRamMemory(parts.options.checksum === "none" ? "presence" : "checksums");
  }

  async prepare(): Promise<void> {
    await invalidateMapped(this.#parts.target, this.#parts.identity);
  }

  task(common: IntakeTask): PlaceTask {
    return { ...common, ram: this.#ram, regions: this.#regions, work: { kind: "image" } };
  }

  async seal(taken: readonly TakenIn[], streams: Streams, evidence: SealEvidence): Promise<ImageFacts> {
    const { options, target, identity } = this.#parts;
    const main = (taken as readonly Placed[]).find((one) => one.main !== null)?.main as PlacedMain;
    const { capabilities, ...metadata } = this.#parts.describe(streams, evidence);
    const described = {
      ...metadata,
      capabilities: [...capabilities, MAPPED_RAM],
      // Nothing of that is left in the file.
      ...{ multifdChannels: 0, compression: null },
      // What has no bit is passed over by QEMU's loader, not cleared.
      needsZeroedRam: true,
    };
    const seal = await sealPlaced(target, identity, main, new RamTables(this.#ram), described);
    const size = { bytes: seal.imageEnd - seal.base, directIo: target.directIo };
    return savedFacts(options.image, "mapped-ram", identity, described, size);
  }
}
