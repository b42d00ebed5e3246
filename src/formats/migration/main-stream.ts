import { ByteInput, ResumableParser, type Steps } from "./byte-input.ts";
import { MAPPED_RAM, walkConfiguration } from "./configuration.ts";
import { MainFacts } from "./main-facts.ts";
import { RamRecords } from "./ram-records.ts";
import type { RecordSink } from "./record-sink.ts";
import { walkSections } from "./sections.ts";
import type { MainSummary, RamBlock, Walker } from "./summary.ts";
import { TailFinder } from "./tail-finder.ts";

/**
 * Walks the main channel: parses it up to the end of RAM, then looks for the EOF byte and the vmdescription
 * at its end. Where it cannot be followed (`undecided` says why), RAM is not interpreted further: ramEnd is
 * null, barriers is empty and barrierMode null, and the record counts say only what was met before.
 * A stream whose RAM has no END section (a background snapshot) keeps its barriers.
 * Holds 2 KiB, the barriers and the names of RAMBlocks and devices, all of them limited.
 */
export class MainWalker implements Walker<MainSummary> {
  readonly #input = new ByteInput();
  readonly #facts = new MainFacts();
  readonly #tail = new TailFinder();
  readonly #parser: ResumableParser;

  /** @param sink told of the RAM, where somebody wants it */
  constructor(sink: RecordSink | null = null) {
    const steps = walkMain(this.#input, this.#facts, this.#tail, sink);
    this.#parser = new ResumableParser(this.#input, steps, () => sink?.held ?? false);
  }

  /** Machine type; null until it has passed. */
  get machine(): string | null {
    return this.#facts.machine;
  }

  /** RAM block list; null until the whole list has passed. */
  get ramBlocks(): readonly RamBlock[] | null {
    return this.#facts.ramBlocks;
  }

  /** Whether the source opened a return path; known before RAM starts. */
  get returnPath(): boolean {
    return this.#facts.returnPath;
  }

  /** While the sink is held afterwards, the chunk must stay as it is, and `resume` comes before the next one. */
  push(chunk: Uint8Array): void {
    this.#parser.push(chunk);
  }

  /** Goes on with the rest of the last chunk when the sink is held no longer. */
  resume(): void {
    this.#parser.resume();
  }

  finish(): MainSummary {
    this.#parser.rethrow();
    const facts = this.#facts;
    const tail = this.#tail.finish();
    const undecided = [...facts.undecided];
    if (tail === null && this.#tail.endsWithBareEof) {
      undecided.push("the stream ends with an EOF byte but has no vmdescription (suppress-vmdesc)");
    }
    if (tail !== null && tail.pageSize !== facts.pageSize) {
      undecided.push(
        `the vmdescription says ${tail.pageSize} bytes a page, but RAM was read with ${facts.pageSize}`,
      );
    }
    return {
      kind: "main",
      bytes: this.#input.fed,
      machine: facts.machine,
      pageSize: facts.pageSize,
      capabilities: [...facts.capabilities],
      uuid: facts.uuid,
      barrierMode: facts.barrierMode,
      ramBlocks: facts.ramBlocks ?? [],
      barriers: [...facts.barriers],
      ramEnd: facts.ramEnd,
      pageRecords: facts.pageRecords,
      zeroRecords: facts.zeroRecords,
      eofByte: tail?.eofByte ?? null,
      devices: tail?.devices ?? [],
      undecided,
    };
  }
}

function* walkMain(
  input: ByteInput,
  facts: MainFacts,
  tail: TailFinder,
  sink: RecordSink | null,
): Steps<never> {
  if (sink !== null) input.keepWith((bytes) => sink.rest(bytes));
  const reason =
    (yield* walkConfiguration(input, facts)) ??
    mappedRam(facts) ??
    (yield* walkSections(input, facts, new RamRecords(input, facts, sink)));
  if (reason !== null) {
    sink?.lost(reason);
    facts.abandonRam(reason);
  }
  for (;;) {
    input.drain((bytes, offset) => tail.scan(bytes, offset));
    yield;
  }
}

/** The block list then carries offsets into a file, and RAM has no records at all. */
function mappedRam({ capabilities }: MainFacts): string | null {
  return capabilities.includes(MAPPED_RAM) ? "the capability mapped-ram is on" : null;
}
