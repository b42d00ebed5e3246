import { MultifdError } from "../../errors.ts";
import { damaged } from "../../formats/image/damage.ts";
import { type Completeness, judgeCompleteness } from "../../formats/migration/completeness.ts";
import type { MainSummary } from "../../formats/migration/summary.ts";
import type { Source } from "../../io/source.ts";
import { ControlBlock } from "../../pool/control-block.ts";
import type { Walked, WalkTask } from "../../pool/messages.ts";
import { WALK } from "../../pool/worker-code.ts";
import { Meter } from "../meter.ts";
import type { RunOptions } from "../options.ts";
import { readInParallel } from "../reading-run.ts";
import type { QemuStreamReport, VerifyReport } from "../reports.ts";
import { SILENT } from "../silent-log.ts";

interface WalkedStream extends Walked {
  readonly judged: Completeness;
}

/**
 * Says what a migration stream of QEMU is that lies in a file as it came; all of it is read.
 * @param source its base is where the stream begins, be it aligned or not
 * @throws MultifdError IMAGE_DAMAGED, IO; one that is cut is described, not thrown
 */
export async function inspectQemuStream(options: RunOptions, source: Source): Promise<QemuStreamReport> {
  const { summary, judged } = await walk(options, source);
  const { machine, pageSize, capabilities, uuid, ramBlocks, pageRecords, zeroRecords, devices } = summary;
  return {
    ...{ path: options.image, format: "qemu-stream", sealed: false, imageUuid: null, created: null },
    ...{ base: source.base, bytes: source.available, dataBytes: summary.bytes },
    ...{ metadata: null, destination: null, verdict: judged.verdict, reasons: judged.reasons },
    ...{ machine, pageSize, capabilities, vmUuid: uuid, blocks: ramBlocks },
    ...{ dataPages: pageRecords, zeroPages: zeroRecords, devices },
    ranges: [{ what: "stream", offset: source.base, length: source.available }],
  };
}

/**
 * Reads a whole stream, and sees that it ends as a migration ends. Nothing in it is checksummed.
 * @throws MultifdError IMAGE_DAMAGED, STREAM_UNDECIDED, IO, CANCELLED
 */
export async function verifyQemuStream(
  options: RunOptions,
  source: Source,
): Promise<Omit<VerifyReport, "path">> {
  const meter = new Meter();
  const { summary, judged, pieces } = await walk(options, source);
  const why = judged.reasons.join("; ");
  if (judged.verdict === "incomplete") throw damaged("QEMU's stream", why);
  if (!judged.sealable) {
    const text = `nothing proves that QEMU's stream in ${options.image} is whole: ${why}; only a restore tells`;
    throw new MultifdError("STREAM_UNDECIDED", text, {});
  }
  if (judged.verdict === "undecided") {
    (options.log ?? SILENT).warn(
      {},
      `${options.image} ends as a migration ends, but not all was followed: ${why}`,
    );
  }
  return { checked: "structure only", blocks: pieces, bytes: summary.bytes, elapsedMs: meter.elapsedMs };
}

async function walk(options: RunOptions, { fd, base, available }: Source): Promise<WalkedStream> {
  const meter = new Meter();
  const control = new ControlBlock();
  const task: WalkTask = { connection: 0, fd, control: control.memory, offset: base, length: available };
  const progress = () => meter.sample([{ channel: "main", bytes: control.moved(0) }], available);
  const [walked] = await readInParallel<Walked>(options, WALK, control, [task], progress, (_, error) =>
    asDamage(error, base),
  );
  const { summary, pieces } = walked as Walked;
  return { summary, pieces, judged: judge(summary) };
}

/** There is no other channel: what the stream lacks, it lacks. */
function judge(summary: MainSummary): Completeness {
  return judgeCompleteness(summary, [], 0);
}

/** What does not parse in a file is damage, not a peer's fault. */
function asDamage(error: unknown, base: number): unknown {
  if (!(error instanceof MultifdError) || error.code !== "PROTOCOL") return error;
  const where = base === 0 ? "QEMU's stream" : `QEMU's stream from byte ${base} of the file on`;
  return damaged(where, error.message, error.details, error);
}
