import type { Command } from "commander";
import type { InstantOptions } from "../control/instant/options.ts";
import { repeatable, valued } from "./options.ts";
import { refuseTogether, refuseWithout } from "./qemu-options.ts";
import { parsePair, parsePositiveSize, parseSize, usage } from "./values.ts";

/** How a VM runs at once, and gets its RAM afterwards. */
export interface InstantFlags {
  readonly instant?: true;
  readonly resume?: true;
  readonly unverified?: true;
  readonly backgroundRate?: "auto" | number;
  readonly hostPages?: readonly HostPages[];
}

type HostPages = readonly [block: string, bytes: number];

export function addInstantOptions(command: Command): Command {
  return command
    .optionsGroup("Instant restore:")
    .option("--instant", "the VM runs at once, and its RAM follows (mapped-ram images)")
    .option(
      "--resume",
      "with --qmp or --connect: go on with an instant restore whose helper is gone or hangs",
    )
    .addOption(
      valued(
        "--background-rate <rate>",
        "of pages that nobody waits for: auto, BYTES/S, or 0 for none (default: auto)",
        parseBackgroundRate,
      ),
    )
    .option("--unverified", "take an image without checksums: damage in it reaches a VM that runs")
    .addOption(
      repeatable(
        "--host-pages <block=size>",
        "with --connect: page size of a RAMBlock in hugetlbfs (repeatable)",
        parseHostPages,
      ),
    );
}

/** What of a restore makes no sense where its RAM follows. */
interface OtherFlags {
  readonly connect?: string;
  readonly qmp?: string;
  readonly channels?: number;
  readonly zeroedRam?: true;
  readonly clearRam?: true;
  readonly engine?: string;
  readonly rate?: number;
  readonly stallTimeout?: number;
  readonly uuid?: string;
  readonly running?: true;
  readonly paused?: true;
  readonly verify?: "first" | "blocks" | "lazy";
}

/** @throws MultifdError USAGE */
export function checkInstantFlags(flags: InstantFlags & OtherFlags): void {
  const { resume, connect, verify, backgroundRate, unverified, hostPages } = flags;
  if (!isInstant(flags)) {
    refuseWithout("--instant", { backgroundRate, unverified, hostPages });
    if (verify === "lazy") throw usage("--verify lazy makes no sense without --instant");
    return;
  }
  const { channels, zeroedRam, clearRam, engine, rate, stallTimeout, uuid, running, paused } = flags;
  const option = flags.instant ? "--instant" : "--resume";
  refuseTogether(option, { channels, zeroedRam, clearRam, engine, rate, stallTimeout });
  if (verify === "blocks") throw usage(`--verify is one of first, lazy with ${option}`);
  if (connect === undefined) refuseWithout("--connect", { hostPages });
  else refuseTogether("--connect", { uuid });
  if (!resume) return;
  if (connect === undefined && flags.qmp === undefined) {
    throw usage("--resume goes on in a QEMU that is there: name it with --qmp or --connect");
  }
  refuseTogether("--resume", { uuid, running, paused });
}

/** --resume alone says it, too. */
export function isInstant({ instant, resume }: InstantFlags): boolean {
  return instant === true || resume === true;
}

export function instantOptions({
  unverified,
  backgroundRate,
}: InstantFlags): Pick<InstantOptions, "unverified" | "backgroundRate"> {
  return { unverified, backgroundRate };
}

export function hostPages(flags: InstantFlags): Readonly<Record<string, number>> | undefined {
  return flags.hostPages === undefined ? undefined : Object.fromEntries(flags.hostPages);
}

function parseBackgroundRate(text: string, what: string): "auto" | number {
  return text === "auto" ? text : parseSize(text, what);
}

/** "pc.ram=2M". */
function parseHostPages(text: string, what: string): HostPages {
  const [block, size] = parsePair(text, what);
  const bytes = parsePositiveSize(size, `${what} ${block}`);
  if (bytes % 4096 !== 0 || !Number.isInteger(Math.log2(bytes))) {
    throw usage(`${what} wants a power of two of at least 4096 bytes, not ${JSON.stringify(size)}`);
  }
  return [block, bytes];
}
