import fs from "node:fs";
import path from "node:path";
import { MultifdError } from "../errors.ts";
import { PAGE_SIZE } from "../formats/migration/wire.ts";
import { inheritedFd } from "../io/image-target/file-kind.ts";
import type { ConvertOptions } from "./convert/convert.ts";
import type { DiffOptions } from "./convert/diff.ts";
import type { ExtractOptions } from "./convert/extract.ts";
import type { InstantOptions } from "./instant/options.ts";
import type { InspectOptions, RestoreOptions, RunOptions, SaveOptions, TransferOptions } from "./options.ts";

export const DEFAULT_CONNECT_TIMEOUT_MS = 60_000;
const MOST_THREADS = 256;
/** The kernel keeps 2^32 - 1 for "no user". */
const HIGHEST_UID = 2 ** 32 - 2;
/** So that an offset plus any image stays a number that JavaScript counts exactly. */
const LARGEST_OFFSET = 2 ** 52;

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/*
 * Callers from JavaScript have no compiler: what makes no sense is refused here, as USAGE and before anything starts.
 */

export function checkSaveOptions(options: SaveOptions): void {
  checkTransferOptions(options);
  checkText("listen", options.listen);
  checkInteger("channels", options.channels, 0, 255);
  checkInteger("expectBytes", options.expectBytes, 0);
  checkInteger("maxBytes", options.maxBytes, 1);
  checkChoice("format", options.format, ["stream", "mapped-ram"]);
  checkChoice("checksum", options.checksum, ["crc32", "none"]);
  for (const [key, value] of Object.entries(options.meta ?? {})) {
    if (typeof value === "string" || value instanceof Uint8Array) continue;
    throw usage(`the metadata value of "${key}" must be a string or bytes`);
  }
  if (
    inheritedFd(options.image) === null &&
    `unix:${path.resolve(options.image)}` === socketOf(options.listen)
  ) {
    throw usage(`${options.image} cannot be the image and the socket at once`);
  }
  for (const uid of options.allowUids ?? []) checkInteger("allowUids", uid, 0, HIGHEST_UID);
  if (options.allowUids?.length && options.listen.startsWith("tcp:")) {
    throw usage("--allow-uid needs a unix socket: a tcp connection does not tell whose it is");
  }
}

export function checkRestoreOptions(options: RestoreOptions): void {
  checkTransferOptions(options);
  checkText("connect", options.connect);
  checkChoice("verify", options.verify, ["first", "blocks"]);
  checkInteger("channels", options.channels, 0, 255);
  checkAgreement(options);
  if (options.uuid !== undefined && !UUID.test(options.uuid)) throw usage(`uuid is no UUID: ${options.uuid}`);
}

export function checkInstantOptions(options: InstantOptions): void {
  checkTransferOptions(options);
  checkText("connect", options.connect);
  checkChoice("verify", options.verify, ["first", "lazy"]);
  const { backgroundRate, hostPages = {} } = options;
  if (backgroundRate !== "auto") checkInteger("backgroundRate", backgroundRate, 0);
  for (const [block, bytes] of Object.entries(hostPages)) {
    checkInteger(`hostPages of ${block}`, bytes, PAGE_SIZE);
    if (!Number.isInteger(Math.log2(bytes)))
      throw usage(`the pages of ${block} must have a power of two of bytes`);
  }
}

function checkAgreement({ channels, expect }: RestoreOptions): void {
  if (channels === undefined || expect?.channels === undefined || channels === expect.channels) return;
  throw usage(`--channels ${channels} contradicts --expect channels=${expect.channels}`);
}

export function checkConvertOptions(options: ConvertOptions): void {
  checkRunOptions(options);
  checkOutput(options.image, options.output);
  checkChoice("format", options.format, ["stream", "mapped-ram", "libvirt"]);
  checkChoice("checksum", options.checksum, ["crc32", "none"]);
  checkInteger("channels", options.channels, 0, 255);
  checkInteger("outputOffset", options.outputOffset, 0, LARGEST_OFFSET);
  if (options.channels !== undefined && options.format !== "stream") {
    throw usage(`--channels is for --format stream: ${options.format} has none`);
  }
  if (options.format !== "libvirt" && (options.xml ?? options.running) !== undefined) {
    throw usage("--xml, --running and --paused are for --format libvirt");
  }
}

export function checkExtractOptions(options: ExtractOptions): void {
  checkRunOptions(options);
  checkOutput(options.image, options.output);
  checkText("block", options.block);
}

export function checkDiffOptions(options: DiffOptions): void {
  checkRunOptions(options);
  checkText("other", options.other);
  checkInteger("otherOffset", options.otherOffset, 0, LARGEST_OFFSET);
}

function checkOutput(image: string, output: string): void {
  checkText("output", output);
  const same = inheritedFd(image) === null ? realPath(image) === realPath(output) : image === output;
  if (same) throw usage(`${output} cannot be read and written at once: give another output`);
}

/** Links followed: what a link leads to would be replaced. */
function realPath(file: string): string {
  try {
    return fs.realpathSync(file);
  } catch {
    return path.resolve(file);
  }
}

/** What save, restore and verify have in common. */
export function checkRunOptions(options: RunOptions): void {
  checkInspectOptions(options);
  checkInteger("workers", options.workers, 1, MOST_THREADS);
  checkChoice("directIo", options.directIo, ["auto", "on", "off"]);
}

export function checkInspectOptions(options: InspectOptions): void {
  if (typeof options !== "object" || options === null) throw usage("the options must be an object");
  checkText("image", options.image);
  if (options.image.includes("\0")) throw usage("the image's path must not contain a NUL character");
  if (options.image.startsWith("fd:") && inheritedFd(options.image) === null) {
    throw usage(
      `"${options.image}" is no descriptor: use fd:N with a number, or ./${options.image} for a file of that name`,
    );
  }
  checkInteger("offset", options.offset, 0, LARGEST_OFFSET);
}

function checkTransferOptions(options: TransferOptions): void {
  checkRunOptions(options);
  checkInteger("connectTimeoutMs", options.connectTimeoutMs, 1);
  checkInteger("stallTimeoutMs", options.stallTimeoutMs, 0);
  checkInteger("rate", options.rate, 1);
}

function socketOf(listen: string): string | null {
  return listen.startsWith("unix:") ? `unix:${path.resolve(listen.slice("unix:".length))}` : null;
}

function checkText(name: string, value: unknown): void {
  if (typeof value !== "string" || value === "") throw usage(`${name} must be given, as text`);
}

function checkChoice(name: string, value: unknown, choices: readonly string[]): void {
  if (value === undefined || choices.includes(String(value))) return;
  throw usage(`${name} must be one of ${choices.join(", ")} and is ${String(value)}`);
}

function checkInteger(
  name: string,
  value: number | undefined,
  least: number,
  most: number = Number.MAX_SAFE_INTEGER,
): void {
  if (value === undefined || (Number.isSafeInteger(value) && value >= least && value <= most)) return;
  const range = most === Number.MAX_SAFE_INTEGER ? `${least} or more` : `${least} to ${most}`;
  throw usage(`${name} must be a whole number, ${range}, and is ${value}`);
}

function usage(message: string): MultifdError {
  return new MultifdError("USAGE", message);
}
