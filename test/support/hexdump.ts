import { Buffer } from "node:buffer";

const LINE = 16;

/** The text `hexdump -C` prints, without line end behind the last line. */
export function hexdump(bytes: Buffer): string {
  const lines: string[] = [];
  for (let at = 0; at < bytes.length; at += LINE) {
    const line = bytes.subarray(at, at + LINE);
    const repeats = at > 0 && line.length === LINE && line.equals(bytes.subarray(at - LINE, at));
    if (!repeats) lines.push(dumpLine(at, line));
    else if (lines.at(-1) !== "*") lines.push("*");
  }
  lines.push(address(bytes.length));
  return lines.join("\n");
}

/** The bytes behind such a text. */
export function parseHexdump(text: string): Buffer {
  const parts: Buffer[] = [];
  let length = 0;
  for (const line of text.split("\n")) {
    if (line === "*") continue;
    const at = Number.parseInt(line.slice(0, 8), 16);
    const last = parts.at(-1);
    // Lines left out repeat the last one.
    for (; length < at && last !== undefined; length += LINE) parts.push(last);
    const bytes = Buffer.from(line.slice(10, 58).replaceAll(" ", ""), "hex");
    parts.push(bytes);
    length += bytes.length;
  }
  return Buffer.concat(parts);
}

function dumpLine(at: number, line: Buffer): string {
  const pairs = Array.from(line, (byte) => byte.toString(16).padStart(2, "0"));
  const half = (from: number): string => pairs.slice(from, from + LINE / 2).join(" ");
  const ascii = Array.from(line, (byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : "."));
  return `${address(at)}  ${`${half(0)}  ${half(8)}`.padEnd(48)}  |${ascii.join("")}|`;
}

function address(at: number): string {
  return at.toString(16).padStart(8, "0");
}
