import type { ByteInput, Steps } from "./byte-input.ts";
import type { MainFacts } from "./main-facts.ts";
import type { RamBlock } from "./summary.ts";
import { hexWord, protocolError } from "./wire.ts";

// QEMU 7.2.22 and 10.0.2: ram_save_setup in migration/ram.c.
const FLAG_MEM_SIZE = 0x004;
/** A block for each of 256 memory slots and for every ROM and VRAM is still far below this. */
export const BLOCK_LIMIT = 4096;

/**
 * Reads the block list that opens the payload of RAM's START section: the sum of all lengths, then name and
 * used length of each block (and its guest physical address with x-ignore-shared) until they add up.
 */
export function* walkBlockList(input: ByteInput, facts: MainFacts): Steps {
  const total = yield* walkRamSize(input, facts);
  const blocks = new Map<string, RamBlock>();
  const addressBytes = facts.capabilities.includes("x-ignore-shared") ? 8 : 0;
  for (let missing = total; missing > 0; ) {
    while (!input.ready(1)) yield;
    const nameLength = input.u8(0);
    const entryBytes = 1 + nameLength + 8 + addressBytes;
    while (!input.ready(entryBytes)) yield;
    const name = input.text(1, nameLength);
    const usedLength = input.u64(1 + nameLength);
    if (nameLength === 0 || blocks.has(name) || blocks.size === BLOCK_LIMIT) {
      throw protocolError("RAM lists a block without a name, or one twice, or too many", input.offset);
    }
    if (usedLength > missing || usedLength % facts.pageSize !== 0) {
      throw protocolError(
        `RAM lists the block "${name}" with ${usedLength} bytes, which cannot be`,
        input.offset,
      );
    }
    blocks.set(name, { name, usedLength });
    missing -= usedLength;
    input.consume(entryBytes);
  }
  facts.ramBlocks = [...blocks.values()];
}

/** Reads the word that opens the payload of RAM's START section. Returns the sum of all blocks' lengths. */
export function* walkRamSize(input: ByteInput, facts: MainFacts): Steps<number> {
  while (!input.ready(8)) yield;
  const flags = input.u32(4) & (facts.pageSize - 1);
  const total = input.u64(0) - flags;
  if (flags !== FLAG_MEM_SIZE || !Number.isSafeInteger(total)) {
    throw protocolError(`RAM begins with flags ${hexWord(flags)}, not with its size`, input.offset);
  }
  input.consume(8);
  return total;
}
