import { Buffer } from "node:buffer";
import { MultifdError } from "../../errors.ts";
import { MAPPED_RAM } from "../migration/configuration.ts";
import { PAGE_SIZE } from "../migration/wire.ts";
import { be32, counted } from "../migration/words.ts";
import type { Landmarks, MappedStream } from "./model.ts";

/** A part of a stream that is made out of the one in a mapped-ram file. */
export type FileStep =
  | { readonly kind: "bytes"; readonly bytes: Uint8Array }
  /** What stands at this place of the file, as it is. */
  | CopiedStep;

export interface CopiedStep {
  readonly kind: "copied";
  readonly offset: number;
  readonly length: number;
}

/** The word with the size of RAM. */
export const SIZE_BYTES = 8;
export const EOS_BYTES = 8;

const SUBSECTION = 0x05;

export function bytes(content: Uint8Array): FileStep {
  return { kind: "bytes", bytes: content };
}

/** @param end behind the last byte */
export function copied(start: number, end: number): FileStep {
  return { kind: "copied", offset: start, length: end - start };
}

export function stepLength(step: FileStep): number {
  return step.kind === "bytes" ? step.bytes.length : step.length;
}

/**
 * The places of a stream whose RAM can be sent another way than QEMU stored it.
 * @throws MultifdError QEMU_UNSUPPORTED: what stands before the end of RAM cannot be sent
 */
export function followed({ landmarks, undecided, capabilities, pageSize }: MappedStream): Landmarks {
  const instead = "let QEMU read it itself (--engine file)";
  if (capabilities.includes("x-ignore-shared")) {
    throw unsupported("it was saved with x-ignore-shared, so that shared RAM is not in it", "save again");
  }
  if (landmarks === null) throw unsupported(undecided.at(-1) ?? "its RAM cannot be followed", instead);
  if (pageSize !== PAGE_SIZE) {
    throw unsupported(`its pages have ${pageSize} bytes, and multifd packets are known for 4096`, instead);
  }
  return landmarks;
}

function unsupported(why: string, instead: string): MultifdError {
  const text = `this mapped-ram image cannot be fed to a QEMU as a migration: ${why}; ${instead}`;
  return new MultifdError("QEMU_UNSUPPORTED", text, {});
}

/**
 * The configuration's list of capabilities without mapped-ram. vmstate_configuration of QEMU 10.0.2: the loader wants the
 * list to be what is on at the destination.
 */
export function capabilitiesBut(capabilities: readonly string[]): Buffer {
  const left = capabilities.filter((name) => name !== MAPPED_RAM);
  if (left.length === 0) return Buffer.alloc(0);
  return Buffer.concat([
    Buffer.from([SUBSECTION]),
    counted("configuration/capabilities"),
    be32(1),
    be32(left.length),
    ...left.map(counted),
  ]);
}
