import { parseAddress } from "../channels/address.ts";
import { openTarget } from "../io/image-target/open.ts";
import { Lazy } from "../lazy.ts";
import { ControlBlock } from "../pool/control-block.ts";
import { DRAIN, PLACE } from "../pool/worker-code.ts";
import { throwIfAborted } from "./cancellation.ts";
import type { CompletedEvent } from "./events.ts";
import { Meter } from "./meter.ts";
import type { SaveOptions } from "./options.ts";
import type { SaveBody, SaveBodyParts } from "./save-body.ts";
import type { SaveRunParts } from "./save-format.ts";
import { SILENT } from "./silent-log.ts";
import { Space } from "./space.ts";
import { takeIn } from "./take-in.ts";
import { teller } from "./telling.ts";
import { checkSaveOptions } from "./validate.ts";

/**
 * One save, from the listening socket to the published image. All that can be refused beforehand is, and then it listens;
 * what is needed only when QEMU comes, the formats and what judges the streams, is loaded while it connects.
 */
export async function runSave(options: SaveOptions, parts: SaveRunParts = {}): Promise<CompletedEvent> {
  checkSaveOptions(options);
  const address = parseAddress(options.listen);
  throwIfAborted(options.signal);
  const log = options.log ?? SILENT;
  const target = await openTarget({
    image: options.image,
    offset: options.offset ?? 0,
    directIo: options.directIo ?? "auto",
    onNote: (note) => log.warn({}, note),
  });
  const control = new ControlBlock();
  const meter = new Meter();
  const body = new Lazy(() => loadBody({ options, target, control, meter, log, parts }));
  let completed: CompletedEvent;
  try {
    const space = new Space(target, options, log);
    const onTick = (): void => space.noteRam(control.ramBytes);
    // Known before the formats are: the threads begin to load it at once.
    const code = parts.code ?? (options.format === "mapped-ram" ? PLACE : DRAIN);
    const plan = { address, control, meter, code, begin: () => body.get(), onTick };
    completed = await takeIn(plan, options, async (taken) => (await body.get()).finish(taken));
  } catch (error) {
    // A sealed image that only missed its name is left to the error of publishing it.
    if (!(await wasPublished(body))) await target.discard();
    throw error;
  }
  teller(options)(completed);
  return completed;
}

async function loadBody(parts: SaveBodyParts): Promise<SaveBody> {
  const { SaveBody } = await import("./save-body.ts");
  return new SaveBody(parts);
}

async function wasPublished(body: Lazy<Promise<SaveBody>>): Promise<boolean> {
  return (await body.got?.catch(() => null))?.published ?? false;
}
