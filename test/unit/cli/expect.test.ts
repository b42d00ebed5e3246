import { expect, test } from "vitest";
import { parseExpect } from "../../../src/cli/expect.ts";

const UUID = "00112233-4455-6677-8899-aabbccddeeff";
const usage = (message: RegExp) =>
  expect.objectContaining({ code: "USAGE", message: expect.stringMatching(message) });

test("any of the three expectations can be given, in any order", () => {
  expect(parseExpect(`machine=pc-q35-7.2,uuid=${UUID.toUpperCase()},channels=4`, "--expect")).toEqual({
    machine: "pc-q35-7.2",
    uuid: UUID,
    channels: 4,
  });
  expect(parseExpect("channels=0", "--expect")).toEqual({ channels: 0 });
});

test("a VM without UUID can be expected, as none or as the UUID of zeros", () => {
  const zeros = "00000000-0000-0000-0000-000000000000";
  expect(parseExpect("uuid=none", "--expect")).toEqual({ uuid: "none" });
  expect(parseExpect(`uuid=${zeros}`, "--expect")).toEqual({ uuid: zeros });
});

test("an expectation that cannot be checked is refused instead of ignored", () => {
  const refused = [
    "",
    "channels",
    "channels=",
    "channels=256",
    "uuid=1234",
    "uuid=",
    "machine=",
    "ram=1G",
    "channels=4,",
  ];
  for (const text of refused) {
    expect(() => parseExpect(text, "--expect"), text).toThrow(usage(/--expect/));
  }
  expect(() => parseExpect("channels=4,channels=4", "--expect")).toThrow(usage(/channels twice/));
});
