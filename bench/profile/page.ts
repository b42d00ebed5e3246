import type { Setting } from "../peers/report.ts";
import { table } from "../peers/tables.ts";
import { channelWords, sizeWords } from "../peers/words.ts";
import { COLUMNS, type Party, type Shares, total } from "./shares.ts";

/** One run under perf. */
export interface Profile {
  readonly run: "save" | "restore";
  readonly channels: number;
  readonly way: string;
  readonly ms: number;
  readonly shares: Readonly<Record<Party, Shares>>;
}

export interface Profiles {
  readonly setting: Setting;
  readonly ramBytes: number;
  readonly cores: number;
  readonly profiles: readonly Profile[];
}

/** docs/profiles.md. */
export function renderProfiles({ setting: { machine, qemu }, ramBytes, cores, profiles }: Profiles): string {
  const { cpu, kernel, node } = machine;
  const rows = (run: Profile["run"]): readonly Profile[] => profiles.filter((profile) => profile.run === run);
  return `${[
    HEAD,
    `${sizeWords(ramBytes)} of random bytes; ${cpu}, ${cores} cores; Linux ${kernel}, Node.js ${node}, QEMU ${qemu}. One run each, while
perf sampled both cores: a few per cent slower than without. Milliseconds of processor time; "cores busy" is what all of it comes to, of what
the cores had in the time of the run.`,
    ...(["save", "restore"] as const).flatMap((run) => [
      `## ${run === "save" ? "Saves" : "Restores"}`,
      overview(rows(run), cores),
      `### What the helper does in ${run}s`,
      parts(rows(run), "helper"),
      `### What QEMU does in ${run}s`,
      parts(rows(run), "QEMU"),
    ]),
  ].join("\n\n")}\n`;
}

const HEAD = `# Profiles

Where the processor time of saves and restores goes, for what [the benchmarks](benchmarks.md) say. \`npm run bench:profile\` writes this page
(\`bench/profile\`).`;

function overview(profiles: readonly Profile[], cores: number): string {
  return table(
    ["way", "channels", "time", "helper", "QEMU", "others, the kernel's threads included", "cores busy, %"],
    profiles.map(({ way, channels, ms, shares }) => {
      const [helper, qemu, others] = [total(shares.helper), total(shares.QEMU), total(shares.others)];
      const busy = (100 * (helper + qemu + others)) / ((cores * ms) / 1000);
      return [
        way,
        channelWords(channels),
        ms.toFixed(0),
        ...[helper, qemu, others].map(msOf),
        busy.toFixed(0),
      ];
    }),
  );
}

function parts(profiles: readonly Profile[], party: Party): string {
  const seen = profiles.filter(({ shares }) => total(shares[party]) > 0.05);
  return table(
    ["way", "channels", ...COLUMNS[party]],
    seen.map(({ way, channels, shares }) => [
      way,
      channelWords(channels),
      ...COLUMNS[party].map((column) => msOf(shares[party][column] ?? 0)),
    ]),
  );
}

function msOf(seconds: number): string {
  return (1000 * seconds).toFixed(0);
}
