import { randomUUID } from "node:crypto";
import type { Connection } from "../channels/handover.ts";
import type { SealEvidence } from "../formats/image/model.ts";
import type { Target } from "../io/image-target/target.ts";
import type { ControlBlock } from "../pool/control-block.ts";
import type { IntakeTask, TakenIn } from "../pool/messages.ts";
import { throwIfAborted } from "./cancellation.ts";
import type { CompletedEvent, ImageFacts } from "./events.ts";
import { MappedFormat } from "./mapped-ram/format.ts";
import type { Meter } from "./meter.ts";
import type { Log, SaveOptions } from "./options.ts";
import { intakeTask, type SaveFormat, type SaveRunParts } from "./save-format.ts";
import { describe } from "./seal.ts";
import { decide } from "./seal-decision.ts";
import { warnOfSharedRam } from "./shared-ram.ts";
import { StreamFormat } from "./stream-format.ts";
import { drainedFigures, type Streams } from "./streams.ts";
import type { Intake } from "./take-in.ts";

export interface SaveBodyParts {
  readonly options: SaveOptions;
  readonly target: Target;
  readonly control: ControlBlock;
  readonly meter: Meter;
  readonly log: Log;
  readonly parts: SaveRunParts;
}

/** What a save does from QEMU's first connection on: how channels are taken in, and how an image is made of them. */
export class SaveBody implements Intake {
  readonly barriers: boolean;
  readonly #options: SaveOptions;
  readonly #target: Target;
  readonly #control: ControlBlock;
  readonly #meter: Meter;
  readonly #log: Log;
  readonly #format: SaveFormat;
  #published = false;

  constructor({ options, target, control, meter, log, parts: { makeFormat } }: SaveBodyParts) {
    const parts = {
      ...{ options, target, control },
      identity: { uuid: randomUUID(), createdMs: Date.now() },
      describe: (streams: Streams, evidence: SealEvidence) => describe(streams, evidence, options),
    };
    if (makeFormat !== undefined) this.#format = makeFormat(parts);
    else this.#format = options.format === "mapped-ram" ? new MappedFormat(parts) : new StreamFormat(parts);
    this.barriers = this.#format.barriers;
    this.#options = options;
    this.#target = target;
    this.#control = control;
    this.#meter = meter;
    this.#log = log;
  }

  get published(): boolean {
    return this.#published;
  }

  async prepare(): Promise<void> {
    if (this.#options.replace === true) this.#target.giveUpEarlier();
    await this.#format.prepare();
  }

  task(number: number, connection: Connection): IntakeTask {
    return this.#format.task(
      intakeTask(number, connection, this.#target, this.#control.memory, this.#options),
    );
  }

  /** Makes what was taken in an image, and gives it its name. */
  async finish(taken: readonly TakenIn[]): Promise<CompletedEvent> {
    const { signal } = this.#options;
    const { streams, evidence } = await decide(taken, this.#meter, this.#options);
    throwIfAborted(signal);
    warnOfSharedRam(streams.main, this.#log);
    const image = await this.#format.seal(taken, streams, evidence);
    throwIfAborted(signal);
    this.#published = true;
    await this.#target.publish();
    return this.#completed(taken, image);
  }

  #completed(taken: readonly TakenIn[], image: ImageFacts): CompletedEvent {
    const channels = drainedFigures(taken);
    const bytes = channels.reduce((sum, channel) => sum + channel.bytes, 0);
    return { event: "completed", bytes, elapsedMs: this.#meter.elapsedMs, image, channels };
  }
}
