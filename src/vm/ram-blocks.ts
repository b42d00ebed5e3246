import type { Monitor } from "../qmp/monitor.ts";

/** A RAMBlock as QEMU has it now. */
export interface RamBlockNow {
  readonly usedLength: number;
  /** Of the host's pages that it lies in: 4096, or more in hugetlbfs. */
  readonly pageBytes: number;
}

/** By name; empty where the human monitor does not tell. */
export async function ramBlocks(monitor: Monitor): Promise<ReadonlyMap<string, RamBlockNow>> {
  const text = await monitor
    .execute("human-monitor-command", { "command-line": "info ramblock" })
    .catch(() => "");
  return parseRamBlocks(String(text));
}

/**
 * Reads `info ramblock` (ram_block_format, softmmu/physmem.c of QEMU 7.2, system/physmem.c of 10.0): name, page size as
 * "4 KiB", offset, used and total length in hexadecimal, and in 10.0 host address and protection.
 */
export function parseRamBlocks(text: string): Map<string, RamBlockNow> {
  const found = new Map<string, RamBlockNow>();
  for (const line of text.split(/\r?\n/)) {
    const [, name, count, unit, used] =
      /^\s*(\S.*?)\s+(\d+) ([KMG]iB)\s+0x[0-9a-f]+\s+0x([0-9a-f]+)/.exec(line) ?? [];
    if (name === undefined) continue;
    const pageBytes = Number(count) * UNITS[unit as keyof typeof UNITS];
    found.set(name, { usedLength: Number.parseInt(used as string, 16), pageBytes });
  }
  return found;
}

const UNITS = { KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 } as const;
