import { pageCharts } from "./charts.ts";
import { REASONS } from "./reasons.ts";
import type { Report } from "./report.ts";
import { memoryTable, startTable, table, targetTable, waysTable } from "./tables.ts";
import { judge, type Verdict } from "./targets.ts";
import { channelWords, sizeWords } from "./words.ts";

/** docs/benchmarks.md. @param reasons by a target's name */
export function renderBenchmarks(
  report: Report,
  reasons: Readonly<Record<string, string>> = REASONS,
): string {
  const verdicts = judge(report);
  return `${[
    HEAD,
    `## The machine\n\n${setting(report)}`,
    method(report),
    "## At a glance",
    ...pageCharts(report).map(({ file, chart }) => `![${chart.title}, ${chart.unit}](benchmarks/${file})`),
    `## Targets\n\n${tally(verdicts)}\n\n${targetTable(verdicts, reasons)}`,
    FIGURES_HEAD,
    ...Object.keys(report.results).map(
      (name) => `### ${titleOf(name)}\n\n${figuresOf(report, name)}\n\n${loadOf(report, name)}`,
    ),
  ].join("\n\n")}\n`;
}

const HEAD = `# Benchmarks

\`npm run bench:peers\` measures, and writes this page: change \`bench/peers\` instead. All samples are in
[benchmarks/samples.json](benchmarks/samples.json); [profiles](profiles.md) tell where the processor time goes.`;

function setting({ takenOn, setting: { machine, disk, qemu, fio, compiler } }: Report): string {
  const { cpu, cores, memoryBytes, kernel, node } = machine;
  const model = disk.model === null ? "" : ` (${disk.model})`;
  return table(
    ["what", "which"],
    [
      ["day", takenOn],
      ["processor", `${cpu}, ${cores} ${cores === 1 ? "core" : "cores"}`],
      ["memory", sizeWords(memoryBytes)],
      ["disk", `${disk.fileSystem ?? "unknown file system"} on ${disk.device ?? "no device"}${model}`],
      ["Linux, Node.js", `${kernel}, ${node}`],
      ["QEMU, fio", `${qemu}, ${fio}`],
      ["C compiler", compiler],
    ],
    "text",
  );
}

function method({ ramBytes, rounds }: Report): string {
  const often = rounds === 1 ? "1 round" : `${rounds} rounds`;
  return `## How it was measured

One paused guest with ${sizeWords(ramBytes)} of RAM, every page of it random, is saved and restored over and over. In each table below, all ways
take turns: once per round, in an order that is turned round each time, ${often} after one of warm-up that does not count. A
ratio is taken within each round, and of these the median: a disk that drifts drifts for both.

- **A save's time** is what a user waits for: from \`migrate\` until QEMU calls it completed and the helper, or the C program, has
  ended. It listens by then, as it does for a manager; "process" has its start in it, too.
- **A restore's time** is from the start of the helper, Node.js included, or from QEMU's \`migrate-incoming\`, until QEMU calls it
  completed and the helper has ended. Guests begin with empty RAM in a tmpfs file, and nothing of the image is in the page cache.
- **A verify's time** is that of the whole process.
- **The helper** is the command line, a process of its own, with \`--json --direct-io on\`, and without
  what Node.js might be told by its environment (NODE_EXTRA_CA_CERTS, NODE_OPTIONS). Its images are flushed and sealed when it ends. **Unsynced** is what an fsync of the file took after a way had called itself done.
- **The C program** is [drain.c](../bench/peers/drain.c): a thread per channel receives 1 MiB and writes it with \`O_DIRECT\`, out of huge
  pages, to space that is reserved as the helper reserves it; its checksums are libdeflate's, and fdatasync is the end. Nobody could
  restore from its file. In the warm-up it reads that back, and every block was what had come.
- **fio** goes through one file with 8 requests of 1 MiB under way, \`O_DIRECT\`, and fsync after a write; its buffers are in 4 KiB pages,
  or in huge pages (\`glibc.malloc.hugetlb=1\`). Its time is by its own clock.
- **Load** is the machine's average over a minute, before a measurement: what ended just before is in it.
- **CPU** is user and system time of the helper's or the C program's process, its start included, without QEMU's. **Peak RSS** is the
  kernel's VmHWM. **Cached + Dirty** is the most by which they grew in /proc/meminfo, without what lies in tmpfs.`;
}

function tally(verdicts: readonly Verdict[]): string {
  const bounded = verdicts.filter(({ holds }) => holds !== null);
  const held = bounded.filter(({ holds }) => holds === true);
  return `${held.length} of ${bounded.length} hold. \`npm run bench:check\` measures and judges them anew.`;
}

const FIGURES_HEAD = `## Figures

Medians, and in brackets the first and the third quartile. The ratio is how many times the throughput of each line the first line
of its table had: above 1, the first was faster.`;

const TITLES: Readonly<Record<string, string>> = {
  "c-program": "Save over 4 channels, beside the C program",
  "save-64": "Save over 64 channels, with 2 workers",
  limit: "Save over 4 channels, beside what the disk can do",
  verify: "Verify, beside what the disk can do",
  memory: "Peak RSS of a save over 4 channels",
  start: "Start, until QEMU may migrate",
};

function titleOf(measurement: string): string {
  const [, run, channels] = /^(save|restore)-(\d+)$/.exec(measurement) ?? [];
  const title = TITLES[measurement];
  if (title !== undefined || run === undefined) return title ?? measurement;
  return `${run === "save" ? "Save" : "Restore"} over ${channelWords(Number(channels))}`;
}

function loadOf({ loads }: Report, measurement: string): string {
  return `Load before: ${loads[measurement]?.toFixed(1)}.`;
}

function figuresOf(report: Report, measurement: string): string {
  if (measurement === "memory") return memoryTable(report);
  return measurement === "start" ? startTable(report) : waysTable(report, measurement);
}
