import type { Connection } from "../channels/handover.ts";
import type { ImageMetadata, SealEvidence } from "../formats/image/model.ts";
import type { Target } from "../io/image-target/target.ts";
import type { ControlBlock } from "../pool/control-block.ts";
import type { IntakeTask, TakenIn } from "../pool/messages.ts";
import { drainPlan } from "../pool/ring-plan.ts";
import type { WorkerCode } from "../pool/worker-code.ts";
import type { ImageFacts } from "./events.ts";
import type { SaveOptions } from "./options.ts";
import type { Streams } from "./streams.ts";

/** What one image format does differently from another while a VM is saved. */
export interface SaveFormat {
  /** Whether connections wait for each other at barriers. */
  readonly barriers: boolean;
  /** Makes sure that what was at the target is no image any more. Nothing is written before. */
  prepare(): Promise<void>;
  task(common: IntakeTask): IntakeTask;
  /** Makes what was taken in an image, and flushes it; its name comes later. */
  seal(taken: readonly TakenIn[], streams: Streams, evidence: SealEvidence): Promise<ImageFacts>;
}

/** What a format is made of. */
export interface FormatParts {
  readonly options: SaveOptions;
  readonly target: Target;
  readonly identity: ImageIdentity;
  readonly control: ControlBlock;
  /** What the image is to say of the VM. */
  readonly describe: (streams: Streams, evidence: SealEvidence) => ImageMetadata;
}

export type FormatMaker = (parts: FormatParts) => SaveFormat;

/** What a save does otherwise than its options say. */
export interface SaveRunParts {
  /** What runs for each connection, where that is not what the options say: tests put faults and delays below the data path. */
  readonly code?: WorkerCode | undefined;
  readonly makeFormat?: FormatMaker | undefined;
}

/** Which image this is, from its start on. */
export interface ImageIdentity {
  readonly uuid: string;
  readonly createdMs: number;
}

/** What every format gives a worker. */
export function intakeTask(
  number: number,
  connection: Connection,
  target: Target,
  control: SharedArrayBuffer,
  { channels, maxBytes, rate }: Pick<SaveOptions, "channels" | "maxBytes" | "rate">,
): IntakeTask {
  const { fd, base, directIo, capacity, sparse, ownsFile } = target;
  return {
    connection: number,
    socketFd: connection.workerFd,
    image: { fd, base, directIo },
    control,
    ...drainPlan(number, channels),
    sparse,
    ownsFile,
    capacity,
    maxBytes: maxBytes ?? null,
    rate: rate ?? null,
  };
}

/** An image as `completed` names it. */
export function savedFacts(
  path: string,
  format: ImageFacts["format"],
  { uuid }: ImageIdentity,
  { machine, vmUuid, multifdChannels, compression }: ImageMetadata,
  { bytes, directIo }: { readonly bytes: number; readonly directIo: boolean },
): ImageFacts {
  return { path, format, uuid, bytes, directIo, machine, vmUuid, multifdChannels, compression };
}
