import type { Command } from "commander";
import type { BenchOptions, BenchReport, Source } from "../../bench/bench.ts";
import {
  DEFAULT_OPERATIONS,
  FILLS,
  type Fill,
  OPERATIONS,
  type Operation,
  PAGE_MIXES,
  type PageMix,
} from "../../bench/choices.ts";
import type { RoundsProgress } from "../../bench/rounds.ts";
import { type Combination, DEFAULT_SWEEP } from "../../bench/sweep.ts";
import { BenchProgress } from "../bench-progress.ts";
import { valued } from "../options.ts";
import type { Output } from "../output.ts";
import { runSession } from "../session.ts";
import { parseChoice, parseInteger, parseList, parseRam, usage } from "../values.ts";

interface BenchFlags {
  readonly channels?: readonly number[];
  readonly workers?: readonly Combination["workers"][];
  readonly directIo?: readonly Combination["directIo"][];
  readonly format?: readonly Combination["format"][];
  readonly checksum?: readonly Combination["checksum"][];
  readonly operation: readonly Operation[];
  readonly rounds: number;
  readonly ram: number;
  readonly pages?: PageMix;
  readonly qemu?: string;
  readonly fill?: Fill;
  readonly dir: string;
  readonly svg?: string;
  readonly html?: string;
}

const GIB = 2 ** 30;
const MAX_WORKERS = 256;
const MAX_ROUNDS = 1000;

const EXAMPLE = `
Example:
  multifd-helper bench --dir /var/lib/images
  which channels and format suit this host and disk: a generator speaks QEMU's protocol out of memory, so that no QEMU
  is needed and none is what limits

  multifd-helper bench --qemu /usr/bin/qemu-system-x86_64 --ram 4G --fill mix --channels 2,4,8 --svg bench.svg
  the same with a real guest

  multifd-helper bench --operation save --direct-io on,off --checksum crc32,none --rounds 7 --json
  what O_DIRECT and checksums cost; all samples, and the machine, as one JSON object

Every combination is measured once per round, in alternating order, after a warm-up. The images are removed again.`;

export function addBenchCommand(program: Command, output: Output): void {
  const command = program
    .command("bench")
    .description("Measures save, restore and verify on this host and recommends what to use.");
  addSweepOptions(command);
  addSourceOptions(command);
  command
    .optionsGroup("Image and output:")
    .option("--dir <path>", "where the images lie for a while", ".")
    .option("--svg <file>", "draw charts into this file")
    .option("--html <file>", "write charts and tables as one page")
    .option("--json", "write one JSON object to stdout and nothing else")
    .addHelpText("after", EXAMPLE)
    .action(async (flags: BenchFlags) => {
      checkFlags(flags);
      const { svg, html } = flags;
      const { checkPlaces, writeCharts } = await import("../bench-files.ts");
      checkPlaces([svg, html]);
      const progress = new BenchProgress(process.stderr);
      const report = await runSession(output, { logLevel: "error" }, async ({ signal }) => {
        try {
          return await run(flags, signal, (done) => progress.show(done));
        } finally {
          progress.end();
        }
      });
      const { benchAnswer, benchPage } = await import("../bench-page.ts");
      // Charts that cannot be written must not take with them what took minutes to measure.
      await output.answer(benchAnswer(report), benchPage(report));
      await writeCharts(report, { svg, html });
    });
}

/** What is varied. */
function addSweepOptions(command: Command): void {
  const { channels, format } = DEFAULT_SWEEP;
  command
    .optionsGroup("What is compared (each takes a list):")
    .addOption(
      valued("--channels <list>", `multifd channels (default: ${channels})`, parseList(parseInteger(1, 255))),
    )
    .addOption(valued("--workers <list>", "worker threads, or auto (default: auto)", parseList(parseWorkers)))
    .addOption(
      valued(
        "--direct-io <list>",
        "on, off (default: on where the file system takes O_DIRECT)",
        parseList(parseChoice(["on", "off"] as const)),
      ),
    )
    .addOption(
      valued(
        "--format <list>",
        `stream, mapped-ram (default: ${format})`,
        parseList(parseChoice(["stream", "mapped-ram"] as const)),
      ),
    )
    .addOption(
      valued(
        "--checksum <list>",
        "crc32, none (default: crc32)",
        parseList(parseChoice(["crc32", "none"] as const)),
      ),
    )
    .addOption(
      valued("--operation <list>", "save, restore, verify", parseList(parseChoice(OPERATIONS))).default(
        DEFAULT_OPERATIONS,
        DEFAULT_OPERATIONS.join(","),
      ),
    )
    .addOption(valued("--rounds <n>", "how often each is measured", parseInteger(1, MAX_ROUNDS)).default(3));
}

/** What is saved. */
function addSourceOptions(command: Command): void {
  command
    .optionsGroup("What is saved:")
    .addOption(valued("--ram <bytes>", "the guest's RAM", parseRam).default(GIB, "1G"))
    .addOption(
      valued(
        "--pages <mix>",
        `what the generator's pages hold: ${PAGE_MIXES.join(", ")} (default: random)`,
        parseChoice(PAGE_MIXES),
      ),
    )
    .option("--qemu <path>", "a real, paused guest in this QEMU instead of the generator")
    .addOption(
      valued(
        "--fill <mix>",
        `with --qemu: what its RAM holds: ${FILLS.join(", ")} (default: random)`,
        parseChoice(FILLS),
      ),
    );
}

function checkFlags({ qemu, pages, fill }: BenchFlags): void {
  if (qemu !== undefined && pages !== undefined) {
    throw usage("--pages is the generator's: say what the RAM of --qemu holds with --fill");
  }
  if (qemu === undefined && fill !== undefined) {
    throw usage("--fill fills the RAM of --qemu: say what the generator's pages hold with --pages");
  }
}

async function run(
  flags: BenchFlags,
  signal: AbortSignal,
  onProgress: (progress: RoundsProgress) => void,
): Promise<BenchReport> {
  const { runBench } = await import("../../bench/bench.ts");
  const { channels, workers, directIo, format, checksum, operation, rounds, ram, dir } = flags;
  const sweep: BenchOptions["sweep"] = {
    channels: channels ?? DEFAULT_SWEEP.channels,
    workers: workers ?? DEFAULT_SWEEP.workers,
    format: format ?? DEFAULT_SWEEP.format,
    checksum: checksum ?? DEFAULT_SWEEP.checksum,
    ...(directIo === undefined ? {} : { directIo }),
  };
  return await runBench({
    ...{ source: sourceOf(flags), ramBytes: ram, sweep, operations: operation, rounds, directory: dir },
    ...{ signal, onProgress },
  });
}

function sourceOf({ qemu, fill, pages }: BenchFlags): Source {
  return qemu === undefined
    ? { kind: "generator", pages: pages ?? "random" }
    : { kind: "qemu", path: qemu, fill: fill ?? "random" };
}

function parseWorkers(text: string, what: string): number | "auto" {
  return text === "auto" ? text : parseInteger(1, MAX_WORKERS)(text, what);
}
