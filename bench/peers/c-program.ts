import { mkdir, rename, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { findRepoRoot } from "../../test/support/repo.ts";
import { runWell } from "../../test/support/run.ts";
import { untilBoth } from "./both-ends.ts";
import { multifd } from "./guest.ts";
import type { SavePeer } from "./peer.ts";
import { Program } from "./program.ts";

const SOURCE = join(findRepoRoot(), "bench/peers/drain.c");
const CACHE = join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "multifd-helper");

/** The yardstick's path; compiles drain.c where that is newer. Rejects with the compiler's words. */
export async function compileYardstick(): Promise<string> {
  const binary = join(CACHE, "bench-drain");
  const [source, built] = await Promise.all([stat(SOURCE), stat(binary).catch(() => null)]);
  if (built !== null && built.mtimeMs > source.mtimeMs) return binary;
  await mkdir(CACHE, { recursive: true });
  const fresh = `${binary}.${process.pid}`;
  await runWell("cc", ["-O2", "-Wall", "-Werror", "-o", fresh, SOURCE, "-ldeflate", "-lpthread"]);
  await rename(fresh, binary);
  return binary;
}

/**
 * drain.c: what remains when a thread per channel receives and writes, and nothing else. The first save of each is checked: the
 * program reads its file back, block by block.
 */
export function cProgram(binary: string, channels: number, checksum: "crc32" | "none"): SavePeer {
  let checked = false;
  return {
    name: checksum === "crc32" ? "C program, crc32" : "C program",
    save: async (guest, file, { socket, signal }) => {
      const place = socket("drain");
      const check = checked ? [] : ["check"];
      const program = new Program(binary, [place, file, String(channels + 1), checksum, ...check], {
        signal,
      });
      await Promise.all([program.said("listening"), guest.set(multifd(channels))]);
      const since = performance.now();
      const sample = await untilBoth(program, guest.migrate(`unix:${place}`), since);
      expectAll((await program.ended).stdout, guest.ram.bytes, !checked);
      checked = true;
      return sample;
    },
  };
}

/** All of a guest's RAM, and headers, must have come; else the yardstick did less than its work. */
function expectAll(stdout: string, ramBytes: number, checking: boolean): void {
  const line = stdout.trim().split("\n").at(-1) ?? "";
  const { bytes, checked } = JSON.parse(line) as { bytes: number; checked: number };
  const blocks = checking ? Math.floor(bytes / 2 ** 20) : 0;
  if (bytes >= ramBytes * 0.99 && checked >= blocks) return;
  throw new Error(
    `the C program received ${bytes} bytes of a guest with ${ramBytes}, and checked ${checked} blocks`,
  );
}
