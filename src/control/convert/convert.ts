import fs from "node:fs";
import path from "node:path";
import { MultifdError } from "../../errors.ts";
import type { ImageMetadata } from "../../formats/image/model.ts";
import { domainUuid } from "../../formats/libvirt/domain-xml.ts";
import { ioError } from "../../io/file-io.ts";
import { inheritedFd } from "../../io/image-target/file-kind.ts";
import { throwIfAborted } from "../cancellation.ts";
import { namedUuid } from "../destination-needs.ts";
import type { CompletedEvent } from "../events.ts";
import { refuseRanOn } from "../instant/ran-on.ts";
import { MappedFormat } from "../mapped-ram/format.ts";
import { DEFAULT_CHANNELS, type RunOptions, type SaveOptions } from "../options.ts";
import type { FormatMaker } from "../save-format.ts";
import { runSave } from "../save-run.ts";
import { userMeta } from "../seal.ts";
import { StreamFormat } from "../stream-format.ts";
import { teller } from "../telling.ts";
import { checkConvertOptions } from "../validate.ts";
import { DOMAIN_XML, LibvirtFormat } from "./libvirt-format.ts";
import { decisionOf, type SavedSource, withSource } from "./source.ts";
import { type Intake, transfer } from "./transfer.ts";

export interface ConvertOptions
  extends RunOptions,
    Pick<SaveOptions, "checksum" | "meta" | "expectBytes" | "force" | "replace"> {
  /** What is made: a path, or `fd:N`. */
  readonly output: string;
  /** Bytes before it that belong to somebody else. Default 0. */
  readonly outputOffset?: number | undefined;
  /** libvirt: an image that `virsh restore` takes. */
  readonly format: "stream" | "mapped-ram" | "libvirt";
  /** Of a stream: its multifd channels, 0..255; those of the source, or 4, when left out. */
  readonly channels?: number | undefined;
  /** With format libvirt: the domain's XML; that of the source, if libvirt ran it, when left out. */
  readonly xml?: string | undefined;
  /** With format libvirt: whether the domain runs when it is restored; as it did when it was saved, when left out. */
  readonly running?: boolean | undefined;
  /** Where a copy in mapped-ram lies for a while, where one is needed; the output's directory when left out. */
  readonly scratch?: string | undefined;
}

/**
 * Makes a saved VM of another kind out of one of any kind, as crash-safe as a save: nothing is published that is not whole.
 * @throws MultifdError VM_RAN_ON (an instant restore let it run), UNSUPPORTED_STREAM (the format cannot carry it), VM_MISMATCH
 *   (the XML is another domain's), and what verify() and save() throw
 */
export async function convert(options: ConvertOptions): Promise<CompletedEvent> {
  checkConvertOptions(options);
  throwIfAborted(options.signal);
  const completed = await withSource(options, async (source) => {
    refuseRanOn(source.resumed, options);
    const channels = channelsFor(source, options);
    const makeFormat = formatFor(options, source);
    if (source.channels === null || channels === source.channels || options.format === "mapped-ram") {
      return await move({ ...options, makeFormat }, source, channels);
    }
    // A stream says its pages in the order in which they were sent; only a file in which they have places can be split anew.
    return await withScratch(options, async (image) => {
      const { expectBytes: _, replace: __, ...others } = options;
      const copying: ConvertOptions = { ...others, output: image, outputOffset: 0, format: "mapped-ram" };
      const first = { ...copying, makeFormat: formatFor(copying, source) };
      await move(first, source, source.channels ?? 0);
      return await withSource({ ...others, image, offset: 0 }, (copy) =>
        move({ ...options, makeFormat }, copy, channels),
      );
    });
  });
  teller(options)(completed);
  return completed;
}

async function move(
  { makeFormat, ...options }: ConvertOptions & { readonly makeFormat: FormatMaker },
  from: SavedSource,
  channels: number,
): Promise<CompletedEvent> {
  const plan = await from.plan(channels, options.format === "mapped-ram");
  return await transfer(options, plan, (intake) =>
    runSave(saveOptions(options, from, plan.channels.length - 1, intake), { makeFormat }),
  );
}

function channelsFor(source: SavedSource, { format, channels }: ConvertOptions): number {
  if (format === "libvirt") return 0;
  if (format === "mapped-ram") return source.channels ?? DEFAULT_CHANNELS;
  return channels ?? source.channels ?? DEFAULT_CHANNELS;
}

function saveOptions(
  options: ConvertOptions,
  source: SavedSource,
  channels: number,
  { listen, signal, onEvent }: Intake,
): SaveOptions {
  const { output, outputOffset, format, checksum, expectBytes, force, replace, directIo, workers, log } =
    options;
  return {
    ...{ image: output, offset: outputOffset, listen, signal, onEvent, channels, checksum },
    ...{ expectBytes, force, replace, directIo, workers, log },
    format: format === "mapped-ram" ? format : "stream",
    ...decisionOf(source, force),
  };
}

/** @throws MultifdError USAGE, VM_MISMATCH (the domain's XML) */
function formatFor(options: ConvertOptions, source: SavedSource): FormatMaker {
  const start = options.format === "libvirt" ? libvirtStart(options, source) : null;
  return (parts) => {
    const carried: typeof parts = {
      ...parts,
      describe: (streams, evidence) => carry(parts.describe(streams, evidence), source, options),
    };
    if (start !== null) return new LibvirtFormat(carried, start);
    return options.format === "mapped-ram" ? new MappedFormat(carried) : new StreamFormat(carried);
  };
}

/** What the streams do not say goes along: what QMP told, and what the user gave. */
function carry(
  found: ImageMetadata,
  { metadata: stored, resumed }: SavedSource,
  { meta = {} }: Pick<ConvertOptions, "meta">,
): ImageMetadata {
  const more = userMeta(meta);
  if (stored === null) return { ...found, ...more };
  const { qemuVersion, vm, user, userBinary, evidence, barrierMode } = stored;
  return {
    ...found,
    ...{ qemuVersion, barrierMode: found.barrierMode ?? barrierMode },
    vm: vm && { ...vm, ranOn: vm.ranOn || resumed !== null },
    vmUuid: found.vmUuid ?? stored.vmUuid,
    evidence: { ...found.evidence, decidedBy: evidence.decidedBy },
    user: { ...user, ...more.user },
    userBinary: { ...userBinary, ...more.userBinary },
  };
}

function libvirtStart(
  { xml: given, running, image, force }: ConvertOptions,
  { domain, metadata }: SavedSource,
): { xml: string; running: boolean } {
  const xml = given ?? domain?.xml ?? metadata?.user[DOMAIN_XML];
  if (xml === undefined) {
    const text = `${image} has no domain XML in it: give it with --xml (virsh dumpxml --migratable DOMAIN)`;
    throw new MultifdError("USAGE", text, {});
  }
  const [saved, named] = [namedUuid(metadata?.vmUuid ?? ""), domainUuid(xml)];
  if (saved && named !== null && saved !== named && force !== true) {
    const text = `${image} holds the VM with the UUID ${saved}, and the XML is that of ${named}: give the right one, or use --force`;
    throw new MultifdError("VM_MISMATCH", text, { saved, named });
  }
  return { xml, running: running ?? metadata?.vm?.running ?? domain?.running ?? false };
}

/** Lends an image `fd:N` that has no name, and so is gone whatever happens. */
async function withScratch<T>(
  { output, scratch }: ConvertOptions,
  work: (image: string) => Promise<T>,
): Promise<T> {
  if (scratch === undefined && inheritedFd(output) !== null) {
    throw new MultifdError("USAGE", `with ${output}, say where a copy may lie for a while: --scratch DIR`);
  }
  const directory = scratch ?? path.dirname(output);
  const name = path.join(directory, `.multifd-scratch-${process.pid}-${Date.now()}`);
  let fd: number;
  try {
    fd = fs.openSync(name, fs.constants.O_RDWR | fs.constants.O_CREAT | fs.constants.O_EXCL, 0o600);
    fs.unlinkSync(name);
  } catch (error) {
    throw ioError(error, `making a copy in ${directory}`);
  }
  try {
    return await work(`fd:${fd}`);
  } finally {
    fs.closeSync(fd);
  }
}
