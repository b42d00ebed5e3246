import { MultifdError } from "../errors.ts";
import type { ChannelRecord } from "../formats/image/model.ts";
import type { OpenedImage } from "../formats/image/open.ts";
import type { Source } from "../io/source.ts";
import { ControlBlock } from "../pool/control-block.ts";
import type { Checked, CheckTask } from "../pool/messages.ts";
import { readSlots } from "../pool/ring-plan.ts";
import { CHECK } from "../pool/worker-code.ts";
import { labelOf, nameOf } from "./image-facts.ts";
import { Meter } from "./meter.ts";
import type { RunOptions } from "./options.ts";
import { readInParallel } from "./reading-run.ts";
import type { VerifyReport } from "./reports.ts";
import { checkStructure } from "./structure.ts";

/**
 * Reads all channels of an opened image in parallel and checks what its index says of them; tells progress.
 * @throws MultifdError IMAGE_DAMAGED with the place of the first damage found, IO, CANCELLED
 */
export async function checkImage(
  options: RunOptions,
  source: Source,
  image: OpenedImage,
): Promise<Omit<VerifyReport, "path">> {
  const meter = new Meter();
  const checked = await checkChannels(options, source, image, meter);
  checkStructure(
    image,
    checked.map((one) => one.summary),
  );
  const { channels } = image.index;
  return {
    checked: channels.every((channel) => channel.checksumsAt !== null)
      ? "checksums and structure"
      : "structure only",
    blocks: checked.reduce((sum, one) => sum + one.blocks, 0),
    bytes: channels.reduce((sum, channel) => sum + channel.length, 0),
    elapsedMs: meter.elapsedMs,
  };
}

function checkChannels(
  options: RunOptions,
  source: Source,
  image: OpenedImage,
  meter: Meter,
): Promise<readonly Checked[]> {
  const { channels } = image.index;
  const control = new ControlBlock();
  const totalBytes = channels.reduce((sum, channel) => sum + channel.length, 0);
  const tasks = channels.map((record, number): CheckTask => {
    return {
      connection: number,
      image: { fd: source.fd, base: source.base, directIo: source.directIo },
      control: control.memory,
      record,
      slots: readSlots(record.blockBytes, channels.length),
    };
  });
  const progress = () => {
    const moved = channels.map((record, number) => ({
      channel: nameOf(record),
      bytes: control.moved(number),
    }));
    return meter.sample(moved, totalBytes);
  };
  return readInParallel<Checked>(options, CHECK, control, tasks, progress, (number, error) =>
    named(channels[number] as ChannelRecord, error),
  );
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
