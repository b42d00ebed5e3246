import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { buffer } from "node:stream/consumers";
import { MultifdError } from "../errors.ts";
import { errnoOf, usage } from "./values.ts";

/** Metadata is read into memory whole wherever an image is opened. */
export const MAX_META_BYTES: number = 16 * 1024 * 1024;

export type Pair = readonly [key: string, value: string];

/**
 * What --meta and --meta-file give, files read as they are. Throws USAGE for a key that comes twice or for
 * more than MAX_META_BYTES in all, IO for a file that cannot be read.
 */
export async function collectMeta(
  texts: readonly Pair[] = [],
  files: readonly Pair[] = [],
): Promise<Record<string, string | Uint8Array> | undefined> {
  const meta = new Map<string, string | Uint8Array>();
  let room = MAX_META_BYTES;
  const add = (key: string, value: string | Uint8Array): void => {
    if (meta.has(key)) throw usage(`--meta and --meta-file give the key ${key} twice`);
    room -= Buffer.byteLength(value);
    if (room < 0) throw usage(`--meta and --meta-file give more than 16 MiB in all, with the key ${key}`);
    meta.set(key, value);
  };
  for (const [key, value] of texts) add(key, value);
  for (const [key, path] of files) add(key, await readBounded(path, room));
  return meta.size === 0 ? undefined : Object.fromEntries(meta);
}

/** At most one byte more than `limit`: enough to see that there is too much, also of a file without a length. */
async function readBounded(path: string, limit: number): Promise<Uint8Array> {
  try {
    // Opening one that has a name waits for its writer, and no signal ends that; a shell's <(…) has none and is open.
    if ((await stat(path)).isFIFO() && !/^\/(dev\/fd|proc)\//.test(path)) {
      throw usage(`--meta-file cannot read ${path}: it is a FIFO; give a file, or the shell's <(…)`);
    }
    return await buffer(createReadStream(path, { end: limit }));
  } catch (error) {
    if (error instanceof MultifdError) throw error;
    const errno = errnoOf(error);
    throw new MultifdError("IO", `--meta-file cannot read ${path}: ${errno}`, { path, errno });
  }
}
