import { Buffer } from "node:buffer";
import { DEVICE_LIMIT, type Description, DescriptionScanner, NAME_LIMIT } from "./vmdescription.ts";

/** More than most machines need; a hostile text of this length takes some ten MiB once parsed. */
const PARSED_WHOLE = 256 * 1024;

/**
 * Reads a vmdescription in the way that its length asks for. It stands where a save ends and a restore begins, where everybody waits,
 * and V8 has not optimised the scanner: it takes 15 to 35 ms for 44 KiB, JSON.parse less than one.
 */
export class DescriptionReader {
  readonly #scanner = new DescriptionScanner();
  #text: Buffer | null = null;
  /** Bytes that the text will have, and that have come. */
  #length = 0;
  #seen = 0;

  /** Begins with another text. In place, because a stream may be full of what looks like a beginning. */
  restart(length: number): void {
    this.#length = length;
    this.#seen = 0;
    if (length > PARSED_WHOLE) this.#scanner.restart();
  }

  /** How many bytes have come. */
  get seen(): number {
    return this.#seen;
  }

  /** How many are still to come. */
  get left(): number {
    return this.#length - this.#seen;
  }

  /** Takes a copy of what it needs. All pieces together are no longer than was said. */
  push(bytes: Uint8Array): void {
    if (this.#length > PARSED_WHOLE) this.#scanner.push(bytes);
    else {
      this.#text ??= Buffer.allocUnsafe(PARSED_WHOLE);
      this.#text.set(bytes, this.#seen);
    }
    this.#seen += bytes.length;
  }

  /** null when the text is not there to its end, is no JSON, or lacks what is wanted. */
  finish(): Description | null {
    if (this.left > 0) return null;
    if (this.#length > PARSED_WHOLE || this.#text === null) return this.#scanner.finish();
    const text = this.#text.subarray(0, this.#length);
    try {
      return descriptionOf(JSON.parse(text.toString()));
    } catch {
      // What QEMU escapes in texts that nobody wants is its own business: the scanner does not look at them.
      this.#scanner.restart();
      this.#scanner.push(text);
      return this.#scanner.finish();
    }
  }
}

function descriptionOf(value: { page_size?: unknown; devices?: unknown } | null): Description | null {
  if (typeof value !== "object" || value === null) return null;
  const { page_size: pageSize, devices } = value;
  if (typeof pageSize !== "number" || pageSize < 0) return null;
  if (!Array.isArray(devices) || devices.length > DEVICE_LIMIT) return null;
  const names = devices.map((device: { name?: unknown } | null) => device?.name);
  if (!names.every((name) => typeof name === "string")) return null;
  return { pageSize, devices: names.map((name) => (name.length > NAME_LIMIT ? "" : name)) };
}
