import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { RunPool } from "../../src/pool/run-pool.ts";
import { DRAIN } from "../../src/pool/worker-code.ts";

const THREADS = 8;
const POOLS = 8;

/** Of the whole address space; a process may have 65,530 of them (vm.max_map_count). */
function mappings(): number {
  return readFileSync("/proc/self/maps", "latin1").split("\n").length - 1;
}

async function openAndClose(): Promise<void> {
  await new RunPool(DRAIN, THREADS).close();
}

// koffi 3.3.4 never unmaps what it maps for a thread: a stack, its guard page and a heap.
test("the threads of a pool leave no memory mapped", async () => {
  // What the first threads leave is kept for the next ones.
  await openAndClose();
  const before = mappings();
  for (let pool = 0; pool < POOLS; pool++) await openAndClose();
  expect(mappings() - before).toBeLessThan(POOLS * THREADS);
});
