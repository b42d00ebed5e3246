import { type ByteInput, type Steps, skipBytes } from "./byte-input.ts";
import type { MainFacts } from "./main-facts.ts";
import { hexWord, MAIN_MAGIC, protocolError, uuidText } from "./wire.ts";

// QEMU 7.2.22 and 10.0.2: vmstate_configuration and its subsections in migration/savevm.c.
export const STREAM_VERSION = 3;
export const SECTION_CONFIGURATION = 0x07;
const SUBSECTION = 0x05;
const SUBSECTION_VERSION = 1;
/** QEMU's machine names have some 20 characters. */
const MACHINE_LIMIT = 255;
/** QEMU 10 has 20-odd capabilities, of which two can be listed. */
const CAPABILITY_LIMIT = 64;
/** The capability with which QEMU 9.0 and later puts RAM at fixed places of a file. */
export const MAPPED_RAM = "mapped-ram";
/** TARGET_PAGE_BITS of QEMU's targets lie between 10 and 16. */
const PAGE_BITS_MIN = 10;
const PAGE_BITS_MAX = 16;

/**
 * Reads everything up to the first section: magic, version, machine type, subsections. Returns why the rest
 * cannot be followed, or null.
 */
export function* walkConfiguration(input: ByteInput, facts: MainFacts): Steps<string | null> {
  while (!input.ready(8)) yield;
  if (input.u32(0) !== MAIN_MAGIC) {
    throw protocolError(`begins with ${hexWord(input.u32(0))}, not with "QEVM"`, 0);
  }
  if (input.u32(4) !== STREAM_VERSION) {
    throw protocolError(`has stream version ${input.u32(4)}; only version 3 is known`, 4);
  }
  input.consume(8);

  while (!input.ready(5)) yield;
  const length = input.u32(1);
  if (input.u8(0) !== SECTION_CONFIGURATION || length === 0 || length > MACHINE_LIMIT) {
    throw protocolError("does not begin with the name of a machine type", input.offset);
  }
  input.consume(5);
  while (!input.ready(length)) yield;
  const machine = input.text(0, length);
  // A length that is too long would swallow the subsections behind the name without anybody noticing.
  if (!/^[\x21-\x7e]+$/.test(machine)) {
    throw protocolError("has a machine type that is no readable name", input.offset);
  }
  facts.machine = machine;
  input.consume(length);
  facts.subsections = input.offset;

  for (;;) {
    while (!input.ready(1)) yield;
    if (input.u8(0) !== SUBSECTION) return null;
    const unknown = yield* walkSubsection(input, facts);
    if (unknown !== null) return unknown;
  }
}

function* walkSubsection(input: ByteInput, facts: MainFacts): Steps<string | null> {
  const at = input.offset;
  while (!input.ready(2)) yield;
  const nameLength = input.u8(1);
  while (!input.ready(2 + nameLength + 4)) yield;
  const name = input.text(2, nameLength);
  const version = input.u32(2 + nameLength);
  input.consume(2 + nameLength + 4);
  if (!name.startsWith("configuration/")) {
    throw protocolError("the configuration section has a subsection of something else", at);
  }
  if (version !== SUBSECTION_VERSION) {
    return `the configuration names ${name} in version ${version}, which is not known`;
  }
  switch (name) {
    case "configuration/target-page-bits":
      yield* walkPageBits(input, facts);
      return null;
    case "configuration/capabilities":
      yield* walkCapabilities(input, facts);
      facts.capabilitiesAt = { start: at, end: input.offset };
      return null;
    case "configuration/uuid":
      while (!input.ready(16)) yield;
      facts.uuid = uuidText(input.hex(0, 16));
      yield* skipBytes(input, 16);
      return null;
    default:
      return `the configuration has the unknown part ${name}`;
  }
}

function* walkPageBits(input: ByteInput, facts: MainFacts): Steps {
  while (!input.ready(4)) yield;
  const bits = input.u32(0);
  if (bits < PAGE_BITS_MIN || bits > PAGE_BITS_MAX) {
    throw protocolError(`the configuration gives ${bits} bits to a page`, input.offset);
  }
  facts.pageSize = 2 ** bits;
  input.consume(4);
}

function* walkCapabilities(input: ByteInput, facts: MainFacts): Steps {
  while (!input.ready(4)) yield;
  const count = input.u32(0);
  if (count > CAPABILITY_LIMIT) {
    throw protocolError(`the configuration lists ${count} capabilities, more than QEMU has`, input.offset);
  }
  input.consume(4);
  for (let i = 0; i < count; i++) {
    while (!input.ready(1)) yield;
    const length = input.u8(0);
    while (!input.ready(1 + length)) yield;
    facts.capabilities.push(input.text(1, length));
    input.consume(1 + length);
  }
}
