import { parseAddress } from "../channels/address.ts";
import { openTarget } from "../io/image-target/open.ts";
import { ControlBlock } from "../pool/control-block.ts";
import { DRAIN, PLACE } from "../pool/worker-code.ts";
import { throwIfAborted } from "./cancellation.ts";
import type { CompletedEvent } from "./events.ts";
import { refuseAwaited } from "./instant/refuse-awaited.ts";
import { Meter } from "./meter.ts";
import type { SaveOptions } from "./options.ts";
import { SaveBody } from "./save-body.ts";
import type { SaveRunParts } from "./save-format.ts";
import { SILENT } from "./silent-log.ts";
import { Space } from "./space.ts";
import { takeIn } from "./take-in.ts";
import { teller } from "./telling.ts";
import { checkSaveOptions } from "./validate.ts";

/** One save, from the listening socket to the published image. All that can be refused beforehand is, and then it listens. */
export async function runSave(options: SaveOptions, parts: SaveRunParts = {}): Promise<CompletedEvent> {
  checkSaveOptions(options);
  const address = parseAddress(options.listen);
  throwIfAborted(options.signal);
  const log = options.log ?? SILENT;
  await refuseAwaited(options);
  const target = await openTarget({
    image: options.image,
    offset: options.offset ?? 0,
    directIo: options.directIo ?? "auto",
    onNote: (note) => log.warn({}, note),
  });
  const control = new ControlBlock();
  const meter = new Meter();
  let body: SaveBody | null = null;
  let completed: CompletedEvent;
  try {
    const intake = new SaveBody({ options, target, control, meter, log, parts });
    body = intake;
    const space = new Space(target, options, log);
    const onTick = (): void => space.noteRam(control.ramBytes);
    const code = parts.code ?? (options.format === "mapped-ram" ? PLACE : DRAIN);
    const plan = { address, control, meter, code, intake, onlyPool: true, onTick };
    completed = await takeIn(plan, options, (taken) => intake.finish(taken));
  } catch (error) {
    // A sealed image that only missed its name is left to the error of publishing it.
    if (body?.published !== true) await target.discard();
    throw error;
  }
  teller(options)(completed);
  return completed;
}
