import { type SealEvidence, SUPERBLOCK_BYTES } from "../formats/image/model.ts";
import type { Target } from "../io/image-target/target.ts";
import type { ControlBlock } from "../pool/control-block.ts";
import type { Drained, DrainTask, IntakeTask, TakenIn } from "../pool/messages.ts";
import { DRAIN, type WorkerCode } from "../pool/run-pool.ts";
import type { ImageFacts } from "./events.ts";
import type { SaveOptions } from "./options.ts";
import { type ImageIdentity, type SaveFormat, savedFacts } from "./save-format.ts";
import { describe, invalidate, seal } from "./seal.ts";
import type { Streams } from "./streams.ts";

/** `--format stream`: every channel as it came, in extents of its own. */
export class StreamFormat implements SaveFormat {
  readonly code: WorkerCode = DRAIN;
  readonly barriers = false;
  readonly #options: SaveOptions;
  readonly #target: Target;
  readonly #identity: ImageIdentity;

  constructor(options: SaveOptions, target: Target, identity: ImageIdentity, control: ControlBlock) {
    this.#options = options;
    this.#target = target;
    this.#identity = identity;
    control.claimed = SUPERBLOCK_BYTES;
  }

  async prepare(): Promise<void> {
    await invalidate(this.#target, this.#identity.uuid, this.#identity.createdMs);
  }

  task(common: IntakeTask): DrainTask {
    return { ...common, checksum: this.#options.checksum !== "none" };
  }

  async seal(taken: readonly TakenIn[], streams: Streams, evidence: SealEvidence): Promise<ImageFacts> {
    const metadata = describe(streams, evidence, this.#options);
    const { imageBytes } = await seal(this.#target, this.#identity, taken as readonly Drained[], metadata);
    const size = { bytes: imageBytes, directIo: this.#target.directIo };
    return savedFacts(this.#options.image, "stream", this.#identity, metadata, size);
  }
}
