import { MultifdError } from "../errors.ts";
import type { ChannelRecord } from "../formats/image/model.ts";
import type { OpenedImage } from "../formats/image/open.ts";
import type { Source } from "../io/source.ts";
import { ControlBlock } from "../pool/control-block.ts";
import type { Checked, CheckTask } from "../pool/messages.ts";
import { readSlots } from "../pool/ring-plan.ts";
import { CHECK, RunPool, threadCount } from "../pool/run-pool.ts";
import { throwIfAborted, whenAborted } from "./cancellation.ts";
import { labelOf, nameOf } from "./image-facts.ts";
import { Meter } from "./meter.ts";
import { withSealedImage } from "./opened-image.ts";
import type { VerifyOptions } from "./options.ts";
import type { VerifyReport } from "./reports.ts";
import { checkStructure } from "./structure.ts";
import { teller } from "./telling.ts";
import { checkRunOptions } from "./validate.ts";

const TICK_MS = 100;

/**
 * Reads a whole image in parallel and checks every checksum and the structure of its streams, without a VM.
 * @throws MultifdError IMAGE_DAMAGED with the place of the first damage found, NOT_SEALED, NOT_AN_IMAGE, IO …
 */
export async function verify(options: VerifyOptions): Promise<VerifyReport> {
  checkRunOptions(options);
  throwIfAborted(options.signal);
  const meter = new Meter();
  return withSealedImage(options, async (source, image) => {
    const checked = await checkChannels(options, source, image, meter);
    const summaries = checked.map((one) => one.summary);
    checkStructure(image, summaries);
    const { channels } = image.index;
    const whole = channels.every((channel) => channel.checksumsAt !== null);
    return {
      path: options.image,
      checked: whole ? "checksums and structure" : "structure only",
      blocks: checked.reduce((sum, one) => sum + one.blocks, 0),
      bytes: channels.reduce((sum, channel) => sum + channel.length, 0),
      elapsedMs: meter.elapsedMs,
    };
  });
}

async function checkChannels(
  options: VerifyOptions,
  source: Source,
  image: OpenedImage,
  meter: Meter,
): Promise<readonly Checked[]> {
  const { channels } = image.index;
  const control = new ControlBlock();
  const pool = new RunPool(CHECK, threadCount(options.workers, channels.length));
  const totalBytes = channels.reduce((sum, channel) => sum + channel.length, 0);
  const tell = teller(options);
  const ticker = setInterval(() => {
    const moved = channels.map((record, number) => ({
      channel: nameOf(record),
      bytes: control.moved(number),
    }));
    const event = meter.sample(moved, totalBytes);
    if (event !== null) tell(event);
  }, TICK_MS);
  let unwatch = (): void => undefined;
  try {
    const aborted = new Promise<never>((_, reject) => {
      unwatch = whenAborted(options.signal, reject);
    });
    aborted.catch(() => undefined);
    const tasks = channels.map((record, number) => {
      const task: CheckTask = {
        connection: number,
        image: { fd: source.fd, base: source.base, directIo: source.directIo },
        control: control.memory,
        record,
        slots: readSlots(record.blockBytes, channels.length),
      };
      return pool.run<Checked>(task).catch((error: unknown) => {
        throw named(record, error);
      });
    });
    const all = Promise.all(tasks);
    try {
      return await Promise.race([all, aborted]);
    } catch (error) {
      // The descriptor is closed next: no worker may be reading from it any more.
      control.setGiveUp();
      await Promise.allSettled(tasks);
      throw error;
    }
  } finally {
    clearInterval(ticker);
    unwatch();
    await pool.close();
  }
}

function named(record: ChannelRecord, error: unknown): MultifdError {
  if (!(error instanceof MultifdError)) return new MultifdError("INTERNAL", String(error), {}, error);
  // What does not parse in an image is damage, not a peer's fault.
  const code = error.code === "PROTOCOL" || error.code === "TLS_PEER" ? "IMAGE_DAMAGED" : error.code;
  return new MultifdError(
    code,
    `${labelOf(nameOf(record))}: ${error.message}`,
    { channel: nameOf(record), ...error.details },
    error,
  );
}
