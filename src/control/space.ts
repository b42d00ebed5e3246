import { MultifdError } from "../errors.ts";
import { freeBytes } from "../io/image-target/durability.ts";
import type { Target } from "../io/image-target/target.ts";
import type { Log, SaveOptions } from "./options.ts";

/** Refuses with NO_SPACE before anything starts when the target has less room than --expect-bytes says it needs. */
export function checkSpace(target: Target, options: SaveOptions, log: Log): void {
  const needed = options.expectBytes;
  if (needed === undefined) return;
  const room = target.capacity ?? freeBytes(target.fd);
  if (room >= needed) return;
  const text = `${options.image} has room for ${room} bytes and ${needed} are expected: free some space first`;
  if (options.force !== true) throw new MultifdError("NO_SPACE", `${text}, or use --force`, { room, needed });
  log.warn({ room, needed }, `${text}; going on because of --force`);
}
