import { type SealEvidence, SUPERBLOCK_BYTES } from "../formats/image/model.ts";
import type { Drained, DrainTask, IntakeTask, TakenIn } from "../pool/messages.ts";
import type { ImageFacts } from "./events.ts";
import { type FormatParts, type SaveFormat, savedFacts } from "./save-format.ts";
import { invalidate, seal } from "./seal.ts";
import type { Streams } from "./streams.ts";

/** `--format stream`: every channel as it came, in extents of its own. */
export class StreamFormat implements SaveFormat {
  readonly barriers = false;
  readonly #parts: FormatParts;

  constructor(parts: FormatParts) {
    this.#parts = parts;
    parts.control.claimed = SUPERBLOCK_BYTES;
  }

  async prepare(): Promise<void> {
    const { target, identity } = this.#parts;
    await invalidate(target, identity.uuid, identity.createdMs);
  }

  task(common: IntakeTask): DrainTask {
    return { ...common, checksum: this.#parts.options.checksum !== "none" };
  }

  async seal(taken: readonly TakenIn[], streams: Streams, evidence: SealEvidence): Promise<ImageFacts> {
    const { options, target, identity } = this.#parts;
    const metadata = this.#parts.describe(streams, evidence);
    const { imageBytes } = await seal(target, identity, taken as readonly Drained[], metadata);
    const size = { bytes: imageBytes, directIo: target.directIo };
    return savedFacts(options.image, "stream", identity, metadata, size);
  }
}
