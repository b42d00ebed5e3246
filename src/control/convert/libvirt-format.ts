import { MultifdError } from "../../errors.ts";
import type { SealEvidence } from "../../formats/image/model.ts";
import { encodeLibvirtStart } from "../../formats/libvirt/data-area.ts";
import { DIRECT_ALIGNMENT, writeAligned } from "../../io/file-io.ts";
import { flush, shrink } from "../../io/image-target/durability.ts";
import type { Drained, DrainTask, IntakeTask, TakenIn } from "../../pool/messages.ts";
import type { ImageFacts } from "../events.ts";
import { type FormatParts, type SaveFormat, savedFacts } from "../save-format.ts";
import type { Streams } from "../streams.ts";

/** Key of the user's metadata under which a save of a domain keeps its XML. */
export const DOMAIN_XML = "libvirt.xml";

/** What stands in libvirt's header. */
export interface LibvirtStart {
  readonly xml: string;
  /** Whether the domain runs when it is restored. */
  readonly running: boolean;
}

/**
 * An image of libvirt in its format `raw`: one stream of one channel behind libvirt's header, which says that it is
 * finished only when all of it is on the disk.
 */
export class LibvirtFormat implements SaveFormat {
  readonly barriers = false;
  readonly #parts: FormatParts;
  readonly #start: LibvirtStart & { readonly cookie: null };
  readonly #startBytes: number;

  constructor(parts: FormatParts, start: LibvirtStart) {
    this.#parts = parts;
    this.#start = { ...start, cookie: null };
    this.#startBytes = encodeLibvirtStart({ ...this.#start, complete: false }).length;
    // The extents of the only connection follow each other from here on.
    parts.control.claimed = this.#startBytes;
  }

  async prepare(): Promise<void> {
    const { target, options } = this.#parts;
    if (target.capacity !== null) {
      const text = `${options.image} is a block device, on which libvirt finds no end of its image: use a file`;
      throw new MultifdError("TARGET_REFUSED", text, {});
    }
    shrink(target.fd, target.base);
    await flush(target.fd);
  }

  task(common: IntakeTask): DrainTask {
    return { ...common, checksum: false };
  }

  async seal(taken: readonly TakenIn[], streams: Streams, evidence: SealEvidence): Promise<ImageFacts> {
    const { options, target, identity } = this.#parts;
    const { fd, base } = target;
    const [main] = taken as readonly Drained[];
    const [extent] = main?.extents ?? [];
    if (main?.extents.length !== 1 || extent?.offset !== this.#startBytes) {
      throw new MultifdError("INTERNAL", "the stream does not follow libvirt's header");
    }
    const bytes = this.#startBytes + extent.length;
    await writeAligned(fd, encodeLibvirtStart({ ...this.#start, complete: false }), base);
    shrink(fd, base + bytes);
    await flush(fd);
    const head = encodeLibvirtStart({ ...this.#start, complete: true }).subarray(0, DIRECT_ALIGNMENT);
    await writeAligned(fd, head, base);
    await flush(fd);
    const metadata = this.#parts.describe(streams, evidence);
    return savedFacts(options.image, "libvirt", identity, metadata, { bytes, directIo: target.directIo });
  }
}
