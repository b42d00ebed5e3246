/** A piece of 16-bit code: bytes, a name for the place it stands at, or an instruction that ends in such a place. */
export type Code =
  | readonly number[]
  | { readonly label: string }
  /** `opcode`, then the distance to a label: jumps and calls (rel16). */
  | { readonly opcode: readonly number[]; readonly distanceTo: string }
  /** `opcode`, then the address of a label itself. */
  | { readonly opcode: readonly number[]; readonly addressOf: string };

export function label(name: string): Code {
  return { label: name };
}

/** The bytes of `code` for the 64 KiB segment in which it begins at `origin`. */
export function assemble(origin: number, code: readonly Code[]): number[] {
  const labels = addresses(origin, code);
  const find = (name: string): number => {
    const address = labels.get(name);
    if (address === undefined) throw new RangeError(`there is no label ${name}`);
    return address;
  };
  let next = origin;
  return code.flatMap((piece) => {
    next += sizeOf(piece);
    if ("distanceTo" in piece) return [...piece.opcode, ...u16(find(piece.distanceTo) - next)];
    if ("addressOf" in piece) return [...piece.opcode, ...u16(find(piece.addressOf))];
    return "label" in piece ? [] : [...piece];
  });
}

function addresses(origin: number, code: readonly Code[]): Map<string, number> {
  const found = new Map<string, number>();
  let address = origin;
  for (const piece of code) {
    if ("label" in piece) found.set(piece.label, address);
    address += sizeOf(piece);
  }
  return found;
}

function sizeOf(piece: Code): number {
  if ("label" in piece) return 0;
  return "opcode" in piece ? piece.opcode.length + 2 : piece.length;
}

/** Little-endian; negative numbers as two's complement. */
export function u16(value: number): number[] {
  return [value & 0xff, (value >>> 8) & 0xff];
}

export function u32(value: number): number[] {
  return [value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24];
}

export function ascii(text: string): number[] {
  return [...Buffer.from(text, "latin1")];
}
