import { randomUUID } from "node:crypto";
import { type Address, parseAddress } from "../channels/address.ts";
import { openTarget } from "../io/image-target/open.ts";
import type { Target } from "../io/image-target/target.ts";
import { ControlBlock } from "../pool/control-block.ts";
import type { TakenIn } from "../pool/messages.ts";
import type { WorkerCode } from "../pool/worker-code.ts";
import { throwIfAborted } from "./cancellation.ts";
import type { CompletedEvent, ImageFacts } from "./events.ts";
import { MappedFormat } from "./mapped-ram/format.ts";
import { Meter } from "./meter.ts";
import type { Log, SaveOptions } from "./options.ts";
import { type FormatMaker, intakeTask, type SaveFormat } from "./save-format.ts";
import { describe } from "./seal.ts";
import { decide } from "./seal-decision.ts";
import { warnOfSharedRam } from "./shared-ram.ts";
import { SILENT } from "./silent-log.ts";
import { Space } from "./space.ts";
import { StreamFormat } from "./stream-format.ts";
import { drainedFigures } from "./streams.ts";
import { takeIn } from "./take-in.ts";
import { teller } from "./telling.ts";
import { checkSaveOptions } from "./validate.ts";

/** What a save does otherwise than its options say. */
export interface SaveRunParts {
  /** Another task than the format's own: lets tests put faults and delays below the data path. */
  readonly code?: WorkerCode | undefined;
  readonly makeFormat?: FormatMaker | undefined;
}

/** One save, from the listening socket to the published image. */
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
  let run: SaveRun;
  try {
    run = new SaveRun(options, target, parts, log);
  } catch (error) {
    await target.discard();
    throw error;
  }
  let completed: CompletedEvent;
  try {
    completed = await run.execute(address);
  } catch (error) {
    await run.discard();
    throw error;
  }
  teller(options)(completed);
  return completed;
}

const makeStream: FormatMaker = (parts) => new StreamFormat(parts);
const makeMapped: FormatMaker = (parts) => new MappedFormat(parts);

class SaveRun {
  readonly #options: SaveOptions;
  readonly #target: Target;
  readonly #format: SaveFormat;
  readonly #code: WorkerCode;
  readonly #log: Log;
  readonly #control = new ControlBlock();
  readonly #meter = new Meter();
  #published = false;

  constructor(options: SaveOptions, target: Target, { code, makeFormat }: SaveRunParts, log: Log) {
    const make = makeFormat ?? (options.format === "mapped-ram" ? makeMapped : makeStream);
    this.#options = options;
    this.#target = target;
    this.#format = make({
      ...{ options, target, control: this.#control },
      identity: { uuid: randomUUID(), createdMs: Date.now() },
      describe: (streams, evidence) => describe(streams, evidence, options),
    });
    this.#code = code ?? this.#format.code;
    this.#log = log;
  }

  async execute(address: Address): Promise<CompletedEvent> {
    const { signal } = this.#options;
    const taken = await this.#receive(address);
    const { streams, evidence } = await decide(taken, this.#meter, this.#options);
    throwIfAborted(signal);
    warnOfSharedRam(streams.main, this.#log);
    const image = await this.#format.seal(taken, streams, evidence);
    throwIfAborted(signal);
    this.#published = true;
    await this.#target.publish();
    return this.#completed(taken, image);
  }

  /** Removes what a failed run created; a sealed image that only missed its name is left to `publish`'s error. */
  async discard(): Promise<void> {
    if (!this.#published) await this.#target.discard();
  }

  #receive(address: Address): Promise<readonly TakenIn[]> {
    const control = this.#control;
    const options = this.#options;
    const space = new Space(this.#target, options, this.#log);
    const { barriers } = this.#format;
    return takeIn(
      {
        ...{ address, control, meter: this.#meter, code: this.#code, barriers },
        prepare: () => this.#prepare(),
        task: (number, connection) =>
          this.#format.task(intakeTask(number, connection, this.#target, control.memory, options)),
        onTick: () => space.noteRam(control.ramBytes),
      },
      options,
    );
  }

  async #prepare(): Promise<void> {
    if (this.#options.replace === true) this.#target.giveUpEarlier();
    await this.#format.prepare();
  }

  #completed(taken: readonly TakenIn[], image: ImageFacts): CompletedEvent {
    const channels = drainedFigures(taken);
    const bytes = channels.reduce((sum, channel) => sum + channel.bytes, 0);
    return { event: "completed", bytes, elapsedMs: this.#meter.elapsedMs, image, channels };
  }
}
