import { MultifdError } from "../errors.ts";
import { namedUuid } from "./destination-needs.ts";
import type { Log, RestoreOptions } from "./options.ts";

/** What an image says of the destination that it is for. */
interface Prescribed {
  readonly machine: string | null;
  readonly uuid: string | null;
  /** null: any number will do. */
  readonly multifdChannels: number | null;
}

/** Refuses with EXPECTATION_FAILED an image that is not what the manager set its destination up for. */
export function checkExpectations(
  needs: Prescribed,
  options: Pick<RestoreOptions, "image" | "expect" | "force">,
  log: Log,
): void {
  const { channels, uuid, machine } = options.expect ?? {};
  const differences = [
    needs.multifdChannels === null && channels !== undefined
      ? "it prescribes no number of multifd channels: choose one with --channels"
      : difference("multifd channels", needs.multifdChannels, channels),
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
