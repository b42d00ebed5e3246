import { MultifdError } from "../errors.ts";
import type { RunOptions, SaveOptions, TransferOptions } from "./options.ts";

export const DEFAULT_CONNECT_TIMEOUT_MS = 60_000;
const MOST_THREADS = 256;
/** The kernel keeps 2^32 - 1 for "no user". */
const HIGHEST_UID = 2 ** 32 - 2;

/** Throws USAGE for options of a save that make no sense. */
export function checkSaveOptions(options: SaveOptions): void {
  checkTransferOptions(options);
  checkInteger("channels", options.channels, 0, 255);
  checkInteger("expectBytes", options.expectBytes, 0);
  checkInteger("maxBytes", options.maxBytes, 1);
  for (const uid of options.allowUids ?? []) checkInteger("allowUids", uid, 0, HIGHEST_UID);
  if (options.allowUids?.length && options.listen.startsWith("tcp:")) {
    throw new MultifdError(
      "USAGE",
      "--allow-uid needs a unix socket: a tcp connection does not tell whose it is",
    );
  }
}

/** Throws USAGE for options of a save or a restore that make no sense. */
export function checkTransferOptions(options: TransferOptions): void {
  checkRunOptions(options);
  checkInteger("connectTimeoutMs", options.connectTimeoutMs, 1);
  checkInteger("stallTimeoutMs", options.stallTimeoutMs, 0);
  checkInteger("rate", options.rate, 1);
}

/** Throws USAGE for what no run can work with. */
export function checkRunOptions(options: RunOptions): void {
  if (options.image === "") throw new MultifdError("USAGE", "the image needs a path, or fd:N");
  checkInteger("offset", options.offset, 0);
  checkInteger("workers", options.workers, 1, MOST_THREADS);
}

function checkInteger(
  name: string,
  value: number | undefined,
  least: number,
  most: number = Number.MAX_SAFE_INTEGER,
): void {
  if (value === undefined || (Number.isSafeInteger(value) && value >= least && value <= most)) return;
  const range = most === Number.MAX_SAFE_INTEGER ? `${least} or more` : `${least} to ${most}`;
  throw new MultifdError("USAGE", `${name} must be a whole number, ${range}, and is ${value}`);
}
