/** What JSON text costs to parse, as far as that can be told without parsing it. */
export interface JsonShape {
  /** How deep arrays and objects nest. */
  readonly depth: number;
  /** Brackets, commas and colons outside of strings: no text has more values. */
  readonly marks: number;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/**
 * Measures JSON before it is parsed: a few MiB of brackets would become hundreds of MiB of objects. Of bytes that are
 * no JSON the answer means nothing.
 */
export function measureJson(bytes: Uint8Array): JsonShape {
  let marks = 0;
  let depth = 0;
  let deepest = 0;
  let quoted = false;
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at] as number;
    if (byte === QUOTE) quoted = !quoted;
    else if (quoted) {
      if (byte === BACKSLASH) at++;
    } else if (byte === 0x5b || byte === 0x7b) {
      marks++;
      depth++;
      if (depth > deepest) deepest = depth;
    } else if (byte === 0x5d || byte === 0x7d) {
      depth--;
    } else if (byte === 0x2c || byte === 0x3a) marks++;
  }
  return { depth: deepest, marks };
}
