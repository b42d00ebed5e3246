import type { BarrierMode, RamBlock } from "./summary.ts";
import { PAGE_SIZE } from "./wire.ts";

/** What the walk of the main channel has gathered so far. */
export class MainFacts {
  machine: string | null = null;
  /** Offset behind the machine type, where the configuration's subsections begin. */
  subsections = 0;
  pageSize: number = PAGE_SIZE;
  capabilities: string[] = [];
  uuid: string | null = null;
  /** The configuration's subsection that lists capabilities; null without one. */
  capabilitiesAt: { readonly start: number; readonly end: number } | null = null;
  /** Section id of RAM; null until it has started. */
  ramId: number | null = null;
  barrierMode: BarrierMode | null = null;
  /** null until the whole block list has passed. */
  ramBlocks: readonly RamBlock[] | null = null;
  barriers: number[] = [];
  ramEnd: number | null = null;
  pageRecords = 0;
  zeroRecords = 0;
  /** The source opened a return path, and so waits at the end for a word from the other side. */
  returnPath = false;
  readonly undecided: string[] = [];

  /**
   * The rest of the stream cannot be followed. A list of barriers that is cut short would be mistaken for a
   * whole one, so it goes, and the mode with it.
   */
  abandonRam(reason: string): void {
    this.undecided.push(reason);
    this.barrierMode = null;
    this.barriers = [];
  }
}
