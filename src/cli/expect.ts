import type { Expectations } from "../control/options.ts";
import { parseInteger, parsePair, usage } from "./values.ts";

export const MAX_CHANNELS = 255;
export const parseChannels: (text: string, what: string) => number = parseInteger(0, MAX_CHANNELS);

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** "channels=4,uuid=…,machine=pc-q35-7.2": any of the three, each once; "uuid=none" is a VM without a UUID. */
export function parseExpect(text: string, what: string): Expectations {
  const expected: { channels?: number; uuid?: string; machine?: string } = {};
  for (const part of text.split(",")) {
    const [key, value] = parsePair(part, what);
    if (key in expected) throw usage(`${what} names ${key} twice`);
    if (key === "channels") expected.channels = parseChannels(value, `${what} channels`);
    else if (key === "uuid") expected.uuid = value === "none" ? value : parseUuid(value, `${what} uuid`);
    else if (key === "machine" && value !== "") expected.machine = value;
    else
      throw usage(`${what} knows channels=N, uuid=UUID|none and machine=NAME, not ${JSON.stringify(part)}`);
  }
  return expected;
}

export function parseUuid(text: string, what: string): string {
  if (UUID.test(text)) return text.toLowerCase();
  throw usage(
    `${what} wants a UUID such as 00112233-4455-6677-8899-aabbccddeeff, not ${JSON.stringify(text)}`,
  );
}
