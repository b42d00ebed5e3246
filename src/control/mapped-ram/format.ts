import type { SealEvidence } from "../../formats/image/model.ts";
import type { Target } from "../../io/image-target/target.ts";
import type { ControlBlock } from "../../pool/control-block.ts";
import type { IntakeTask, Placed, PlaceTask, TakenIn } from "../../pool/messages.ts";
import { RamTables, reserveRamMemory } from "../../pool/placing/ram-tables.ts";
import { newRegionBits } from "../../pool/placing/regions.ts";
import { PLACE, type WorkerCode } from "../../pool/run-pool.ts";
import type { ImageFacts } from "../events.ts";
import type { SaveOptions } from "../options.ts";
import { type ImageIdentity, type SaveFormat, savedFacts } from "../save-format.ts";
import { describe } from "../seal.ts";
import type { Streams } from "../streams.ts";
import { invalidateMapped, sealPlaced } from "./seal-placed.ts";

/** `--format mapped-ram`: QEMU's own format, made from the channels of any QEMU while they come. */
export class MappedFormat implements SaveFormat {
  readonly code: WorkerCode = PLACE;
  readonly barriers = true;
  readonly #options: SaveOptions;
  readonly #target: Target;
  readonly #identity: ImageIdentity;
  readonly #regions = newRegionBits();
  readonly #ram: ReturnType<typeof reserveRamMemory>;

  constructor(options: SaveOptions, target: Target, identity: ImageIdentity, _control: ControlBlock) {
    this.#options = options;
    this.#target = target;
    this.#identity = identity;
    this.#ram = reserveRamMemory(options.checksum !== "none");
  }

  async prepare(): Promise<void> {
    await invalidateMapped(this.#target, this.#identity);
  }

  task(common: IntakeTask): PlaceTask {
    return { ...common, ram: this.#ram, regions: this.#regions };
  }

  async seal(taken: readonly TakenIn[], streams: Streams, evidence: SealEvidence): Promise<ImageFacts> {
    const main = (taken as readonly Placed[]).find((one) => one.main !== null)?.main as NonNullable<
      Placed["main"]
    >;
    const { capabilities, ...metadata } = describe(streams, evidence, this.#options);
    const described = {
      ...metadata,
      capabilities: [...capabilities, "mapped-ram"],
      // Nothing of that is left in the file.
      ...{ multifdChannels: 0, compression: null },
      // What has no bit is passed over by QEMU's loader, not cleared.
      needsZeroedRam: true,
    };
    const ram = new RamTables(this.#ram);
    const seal = await sealPlaced(this.#target, this.#identity, main, ram, described);
    const size = { bytes: seal.imageEnd - seal.base, directIo: this.#target.directIo };
    return savedFacts(this.#options.image, "mapped-ram", this.#identity, described, size);
  }
}
