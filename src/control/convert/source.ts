import { MultifdError } from "../../errors.ts";
import type { ImageMetadata } from "../../formats/image/model.ts";
import { decodeSuperblock } from "../../formats/image/superblock.ts";
import { requireComplete } from "../../formats/libvirt/header.ts";
import { MAIN_HEADER_BYTES } from "../../formats/migration/wire.ts";
import { readSpan } from "../../io/file-io.ts";
import type { Source } from "../../io/source.ts";
import type { OutgoingTask, PourTask } from "../../pool/messages.ts";
import { POUR } from "../../pool/worker-code.ts";
import { kindOfFile } from "../foreign/kind.ts";
import { compressedInside, openLibvirt } from "../foreign/libvirt.ts";
import { reportMark } from "../instant/ran-on.ts";
import { openContents } from "../mapped-ram/contents.ts";
import { openFileOf } from "../mapped-ram/open.ts";
import { planMapped } from "../mapped-ram/outgoing.ts";
import { findMark } from "../mapped-ram/resumed.ts";
import { checkBeforehand } from "../mapped-ram/verify.ts";
import { readSealed, withFile } from "../opened-image.ts";
import type { RunOptions, SaveOptions } from "../options.ts";
import type { OutgoingPlan } from "../outgoing.ts";
import type { ResumedReport } from "../reports.ts";
import { planStreams } from "../stored-streams.ts";

/** A saved VM of any kind, as what is made of it needs it. */
export interface SavedSource {
  /** multifd channels that it has; null: none of its own, so that it goes out through as many as are wanted. */
  readonly channels: number | null;
  /** What a seal of ours says; null: there is none. */
  readonly metadata: ImageMetadata | null;
  /** What an instant restore wrote to it; null: none let the VM run. */
  readonly resumed: ResumedReport | null;
  /** What libvirt's header says; null: it has none. */
  readonly domain: { readonly xml: string; readonly running: boolean } | null;
  /**
   * What goes out.
   * @param channels as many as the source has, if it has a number of its own
   * @param zeroedRam the other side has zeros where nothing comes
   */
  plan(channels: number, zeroedRam: boolean): Promise<OutgoingPlan>;
}

/**
 * How a save of what the source sends decides whether it is whole: who sealed the source has decided already; what has no seal must
 * prove itself, unless the caller takes it as it is.
 */
export function decisionOf(
  { metadata }: SavedSource,
  force: boolean | undefined,
): Pick<SaveOptions, "confirm"> {
  return metadata !== null || force === true ? { confirm: () => Promise.resolve("commit") } : {};
}

/**
 * Opens whatever a VM was saved to: our images, mapped-ram files, QEMU's streams of one channel, libvirt's images. What has
 * checksums is checked as it is read.
 * @throws MultifdError NOT_SEALED, NOT_AN_IMAGE, IMAGE_DAMAGED, UNSUPPORTED_VERSION, TARGET_BUSY, IO
 */
export function withSource<T>(options: RunOptions, work: (source: SavedSource) => Promise<T>): Promise<T> {
  return withFile(options, async (source, head, notBusy) => {
    const opened = await openSaved(options, source, head);
    notBusy();
    return await work(opened);
  });
}

async function openSaved(options: RunOptions, source: Source, head: Uint8Array): Promise<SavedSource> {
  switch (await kindOfFile(source, head)) {
    case "mapped-ram":
      return await mappedSource(options, source, null);
    case "qemu-stream":
      return rawSource(options, source, null);
    case "libvirt":
      return await libvirtSource(options, source, head);
    default: {
      const image = await readSealed(source, decodeSuperblock(head));
      return {
        channels: image.index.channels.length - 1,
        metadata: image.metadata,
        resumed: null,
        domain: null,
        plan: () => planStreams(source, image, options),
      };
    }
  }
}

async function libvirtSource(options: RunOptions, source: Source, head: Uint8Array): Promise<SavedSource> {
  const { header, data, stream } = await openLibvirt(source, head);
  requireComplete(header);
  const domain = { xml: data.xml, running: header.running };
  if (header.format === "raw") return rawSource(options, stream, domain);
  if (header.format !== "sparse") throw compressedInside(header, stream, "convert");
  return await mappedSource(options, stream, domain);
}

async function mappedSource(
  options: RunOptions,
  source: Source,
  domain: SavedSource["domain"],
): Promise<SavedSource> {
  const contents = await openContents(openFileOf(source), source.base);
  return {
    channels: null,
    metadata: contents.seal?.metadata ?? null,
    resumed: reportMark(await findMark(source.fd, contents)),
    domain,
    plan: async (channels, zeroedRam) => {
      const plan = await planMapped(source, contents, { image: options.image, channels, zeroedRam });
      await checkBeforehand({ ...options, onEvent: undefined }, source.fd, contents);
      return plan;
    },
  };
}

function rawSource(
  { image }: RunOptions,
  { fd, base, available, directIo }: Source,
  domain: SavedSource["domain"],
): SavedSource {
  const plan = async (): Promise<OutgoingPlan> => {
    if (available < MAIN_HEADER_BYTES) {
      throw new MultifdError("IMAGE_DAMAGED", `QEMU's stream in ${image} has ${available} bytes: it was cut`);
    }
    const task: Omit<PourTask, keyof OutgoingTask> = { fd, offset: base, length: available };
    const firstBytes = await readSpan(fd, base, MAIN_HEADER_BYTES);
    return {
      code: POUR,
      channels: [{ channel: "main", firstBytes, task }],
      totalBytes: available,
      image: {
        ...{ path: image, format: "qemu-stream", uuid: null, bytes: available, directIo },
        ...{ machine: null, vmUuid: null, multifdChannels: 0, compression: null },
      },
    };
  };
  return { channels: 0, metadata: null, resumed: null, domain, plan };
}
