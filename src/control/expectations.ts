import { MultifdError } from "../errors.ts";
import type { ImageMetadata } from "../formats/image/model.ts";
import { destinationNeeds, namedUuid } from "./inspect.ts";
import type { Log, RestoreOptions } from "./options.ts";

/** Refuses with EXPECTATION_FAILED an image that is not what the manager set its destination up for. */
export function checkExpectations(
  metadata: ImageMetadata,
  options: Pick<RestoreOptions, "image" | "expect" | "force">,
  log: Log,
): void {
  const { channels, uuid, machine } = options.expect ?? {};
  const needs = destinationNeeds(metadata);
  const differences = [
    difference("multifd channels", needs.multifdChannels, channels),
    difference("VM UUID", needs.uuid ?? "none", uuid === undefined ? undefined : (namedUuid(uuid) ?? "none")),
    difference("machine type", needs.machine ?? "unknown", machine),
  ].filter((text) => text !== null);
  if (differences.length === 0) return;
  const text = `${options.image} is not what was expected: ${differences.join("; ")}`;
  if (options.force !== true) {
    throw new MultifdError(
      "EXPECTATION_FAILED",
      `${text}; set the destination up for this image, or use another image`,
      {
        channels: needs.multifdChannels,
        uuid: needs.uuid,
        machine: needs.machine,
      },
    );
  }
  log.warn({}, `${text}; going on because of --force`);
}

function difference<T>(what: string, found: T, expected: T | undefined): string | null {
  if (expected === undefined || found === expected) return null;
  return `its ${what} is ${found}, expected was ${expected}`;
}
