import { parseAddress } from "../../channels/address.ts";
import { MultifdError } from "../../errors.ts";
import type { Source } from "../../io/source.ts";
import { throwIfAborted } from "../cancellation.ts";
import type { CompletedEvent } from "../events.ts";
import { checkExpectations } from "../expectations.ts";
import type { MappedContents } from "../mapped-ram/contents.ts";
import { checkBeforehand } from "../mapped-ram/verify.ts";
import { withRestorable } from "../opened-image.ts";
import { SILENT } from "../silent-log.ts";
import { teller } from "../telling.ts";
import { checkInstantOptions } from "../validate.ts";
import { InstantRun } from "./instant-run.ts";
import type { InstantOptions } from "./options.ts";

/**
 * Restores a VM out of a mapped-ram image so that it runs at once: this process plays the source of a migration in postcopy,
 * sends the devices, and then each page when the guest touches it, the others in the background. Until it resolves, the image
 * is a part of the guest's memory.
 * @returns once the destination has all of its RAM
 * @throws MultifdError; `details.ran` tells whether the guest was told to run. If it was, it stands still where it needs a page, and
 *   `resume` goes on
 */
export async function restoreInstant(options: InstantOptions): Promise<CompletedEvent> {
  checkInstantOptions(options);
  parseAddress(options.connect);
  throwIfAborted(options.signal);
  const completed = await withRestorable(
    options,
    () => Promise.reject(needsPages(options.image)),
    (source, contents) => serve(options, source, contents),
  );
  teller(options)(completed);
  return completed;
}

async function serve(
  options: InstantOptions,
  source: Source,
  contents: MappedContents,
): Promise<CompletedEvent> {
  const { stream, uuid, sumsOffset } = contents;
  const log = options.log ?? SILENT;
  checkExpectations({ machine: stream.machine, uuid, multifdChannels: null }, options, log);
  if (sumsOffset === null && options.unverified !== true) throw needsChecksums(options.image);
  if (options.resume !== true) {
    await checkBeforehand(
      { ...options, verify: options.verify === "first" ? "first" : "blocks" },
      source.fd,
      contents,
    );
  }
  const run = await InstantRun.prepare(options, source, contents);
  return await run.execute();
}

function needsPages(image: string): MultifdError {
  const text = `${image} holds its channels as they came, and an instant restore needs each page at its place: make such an image of it first (convert ${image} OUT --format mapped-ram)`;
  return new MultifdError("NOT_AN_IMAGE", text, {});
}

function needsChecksums(image: string): MultifdError {
  const text = `${image} has no checksums, so that damage in it would reach a guest that runs: restore it without --instant, or take the risk with --unverified`;
  return new MultifdError("USAGE", text, {});
}
