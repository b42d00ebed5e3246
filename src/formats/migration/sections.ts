import { type ByteInput, type Steps, skipBytes } from "./byte-input.ts";
import type { MainFacts } from "./main-facts.ts";
import { protocolError } from "./wire.ts";

/** QEMU_VM_* of QEMU 7.2.22 and 10.0.2, migration/savevm.h. */
const SECTION = { START: 0x01, PART: 0x02, END: 0x03, FULL: 0x04, COMMAND: 0x08, FOOTER: 0x7e } as const;
const OPEN_RETURN_PATH = 1;
/** MIG_CMD_* of migration/savevm.c with the length of their data, as far as they leave RAM readable. */
const HARMLESS_COMMANDS: ReadonlyMap<number, number> = new Map([
  [OPEN_RETURN_PATH, 0],
  [2, 4], // PING
  [3, 0], // POSTCOPY_ADVISE without RAM (dirty-bitmaps only)
  [11, 0], // SWITCHOVER_START, 10.0
]);
const COMMAND_NAMES: ReadonlyMap<number, string> = new Map([
  [3, "POSTCOPY_ADVISE"],
  [4, "POSTCOPY_LISTEN"],
  [5, "POSTCOPY_RUN"],
  [6, "POSTCOPY_RAM_DISCARD"],
  [7, "PACKAGED"],
  [8, "ENABLE_COLO"],
  [9, "POSTCOPY_RESUME"],
  [10, "RECV_BITMAP"],
]);
const RAM_VERSION = 4;
const FOOTER_BYTES = 5;
/** A footer, then type, section id and length of the next section's name (or a command). */
const FOOTER_AND_NEXT_BYTES: number = FOOTER_BYTES + 6;

/** Reads the payload of RAM's sections. Both return why RAM cannot be followed further, or null. */
export interface RamSections {
  /** Of START: the block list and what stands behind it, up to and with EOS. */
  start(): Steps<string | null>;
  /** Of PART and END: everything up to and with EOS. */
  walk(): Steps<string | null>;
  /** RAM ends without an END section. */
  endsWithoutEnd(sectionId: number): void;
}

/** Reads sections until RAM's END has passed. Returns why that was not possible, or null. */
export function* walkSections(
  input: ByteInput,
  facts: MainFacts,
  sections: RamSections,
): Steps<string | null> {
  let ramId: number | null = null;
  let iterating = false;
  for (;;) {
    while (!input.ready(1)) yield;
    const at = input.offset;
    const type = input.u8(0);
    let reason: string | null = null;
    switch (type) {
      case SECTION.COMMAND:
        reason = yield* walkCommand(input, facts);
        break;
      case SECTION.FULL:
        if (ramId !== null && iterating) return yield* endWithoutEnd(input, facts, ramId, sections);
        yield* skipEarlySection(input, ramId);
        break;
      case SECTION.START: {
        const started: number | string = yield* walkStart(input, ramId, sections);
        if (typeof started === "string") return started;
        ramId = started;
        facts.ramId = started;
        break;
      }
      case SECTION.PART:
      case SECTION.END:
        iterating = true;
        reason = yield* walkRamSection(input, ramId, sections);
        if (type === SECTION.END && reason === null) {
          facts.ramEnd = input.offset;
          return null;
        }
        break;
      default:
        throw protocolError(`has a section of type ${type} before the end of RAM`, at);
    }
    if (reason !== null) return reason;
  }
}

/** u8 type, u16 command, u16 length, data. */
function* walkCommand(input: ByteInput, facts: MainFacts): Steps<string | null> {
  while (!input.ready(5)) yield;
  const at = input.offset;
  const command = input.u16(1);
  const length = input.u16(3);
  if (command === 0) throw protocolError("has a command of type 0", at);
  input.consume(5);
  yield* skipBytes(input, length);
  if (command === OPEN_RETURN_PATH) facts.returnPath = true;
  if (HARMLESS_COMMANDS.get(command) === length) return null;
  return `the command ${COMMAND_NAMES.get(command) ?? command} with ${length} bytes stands at offset ${at}`;
}

/**
 * u8 type, u32 id, u8 length, name, u32 instance, u32 version, for RAM and every other iterable device. Returns RAM's
 * section id, or why the sections cannot be followed.
 */
function* walkStart(input: ByteInput, known: number | null, sections: RamSections): Steps<number | string> {
  const at = input.offset;
  while (!input.ready(6)) yield;
  const nameEnd = 6 + input.u8(5);
  while (!input.ready(nameEnd + 8)) yield;
  const id = input.u32(1);
  const name = input.text(6, nameEnd - 6);
  const instance = input.u32(nameEnd);
  const version = input.u32(nameEnd + 4);
  if (!isSectionName(name)) throw protocolError("a START section has no readable name", at);
  input.consume(nameEnd + 8);
  if (name !== "ram") return `the iterable device "${name}" starts at offset ${at}`;
  if (known !== null || instance !== 0 || version !== RAM_VERSION) {
    throw protocolError(`RAM starts twice, or is instance ${instance} or version ${version}`, at);
  }
  const reason = yield* sections.start();
  if (reason !== null) return reason;
  yield* walkFooter(input, id);
  return id;
}

/** A PART or END section: u8 type, u32 id, records, footer. */
function* walkRamSection(
  input: ByteInput,
  ramId: number | null,
  sections: RamSections,
): Steps<string | null> {
  while (!input.ready(5)) yield;
  const at = input.offset;
  const id = input.u32(1);
  if (ramId === null || id !== ramId) {
    throw protocolError(`a section continues the device with id ${id}, which never started`, at);
  }
  input.consume(5);
  const reason = yield* sections.walk();
  if (reason === null) yield* walkFooter(input, id);
  return reason;
}

function* walkFooter(input: ByteInput, id: number): Steps {
  while (!input.ready(FOOTER_BYTES)) yield;
  if (input.u8(0) !== SECTION.FOOTER || input.u32(1) !== id) {
    throw protocolError(`a section is not closed by the footer of id ${id}`, input.offset);
  }
  input.consume(FOOTER_BYTES);
}

/**
 * A FULL section before RAM's first PART (early-setup devices, 8.0 and later: virtio-mem's stands behind RAM's
 * START) has no length: it ends at a footer with its id behind which another section begins.
 */
function* skipEarlySection(input: ByteInput, ramId: number | null): Steps {
  while (!input.ready(5)) yield;
  const id = input.u32(1);
  input.consume(5);
  for (;;) {
    while (!input.ready(FOOTER_AND_NEXT_BYTES)) yield;
    const closed = input.u8(0) === SECTION.FOOTER && input.u32(1) === id;
    if (closed && (yield* sectionFollows(input, ramId))) break;
    input.consume(1);
  }
  input.consume(FOOTER_BYTES);
}

/** Whether what stands behind a footer can only be the next section. */
function* sectionFollows(input: ByteInput, ramId: number | null): Steps<boolean> {
  switch (input.u8(FOOTER_BYTES)) {
    case SECTION.COMMAND:
      return input.u8(FOOTER_BYTES + 1) === 0;
    case SECTION.PART:
    case SECTION.END:
      return input.u32(FOOTER_BYTES + 1) === ramId;
    case SECTION.START:
    case SECTION.FULL: {
      const nameLength = input.u8(FOOTER_BYTES + 5);
      while (!input.ready(FOOTER_BYTES + 6 + nameLength)) yield;
      return isSectionName(input.text(FOOTER_BYTES + 6, nameLength));
    }
    default:
      return false;
  }
}

/** Device sections behind RAM's PARTs, without an END between: what a background snapshot looks like. */
function* endWithoutEnd(
  input: ByteInput,
  facts: MainFacts,
  ramId: number,
  sections: RamSections,
): Steps<null> {
  const at = input.offset;
  while (!input.ready(6)) yield;
  const nameEnd = 6 + input.u8(5);
  while (!input.ready(nameEnd)) yield;
  if (input.u32(1) === ramId || !isSectionName(input.text(6, nameEnd - 6))) {
    throw protocolError("RAM is followed by something that is no device section", at);
  }
  sections.endsWithoutEnd(ramId);
  facts.undecided.push("RAM has no END section, as in a background snapshot");
  return null;
}

function isSectionName(name: string): boolean {
  return /^[\x20-\x7e]+$/.test(name);
}
