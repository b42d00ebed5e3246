import fc from "fast-check";
import { expect, test } from "vitest";
import {
  parseChoice,
  parseInteger,
  parsePair,
  parsePositiveSeconds,
  parsePositiveSize,
  parseSeconds,
  parseSize,
} from "../../../src/cli/values.ts";

const usage = (message: RegExp) =>
  expect.objectContaining({ code: "USAGE", message: expect.stringMatching(message) });

test("a size is its count times a binary unit, however the unit is spelled", () => {
  const units = { "": 1, K: 1024, M: 1024 ** 2, G: 1024 ** 3, T: 1024 ** 4 };
  fc.assert(
    fc.property(
      fc.nat({ max: 4096 }),
      fc.constantFrom(...(Object.keys(units) as (keyof typeof units)[])),
      fc.constantFrom("", "B", "iB"),
      fc.boolean(),
      fc.boolean(),
      (count, unit, tail, lower, space) => {
        fc.pre(!(unit === "" && tail === "iB"));
        const suffix = lower ? `${unit}${tail}`.toLowerCase() : `${unit}${tail}`;
        const text = `${count}${space && suffix !== "" ? " " : ""}${suffix}`;
        expect(parseSize(text, "--offset")).toBe(count * units[unit]);
      },
    ),
  );
});

test("a size in hexadecimal is read whole, also where it ends in B", () => {
  fc.assert(
    fc.property(fc.nat({ max: Number.MAX_SAFE_INTEGER }), (bytes) => {
      expect(parseSize(`0x${bytes.toString(16)}`, "--offset")).toBe(bytes);
      expect(parseSize(`0X${bytes.toString(16).toUpperCase()}`, "--offset")).toBe(bytes);
    }),
  );
  expect(parseSize("0x1B", "--offset")).toBe(27);
});

test("text that is no size is refused, naming the option and the text", () => {
  for (const text of ["", " ", "K", "-1", "1.5G", "1e3", "12q", "5iB", "0x", "0xg", "1 0", "4096\n", "٣"]) {
    expect(() => parseSize(text, "--offset"), JSON.stringify(text)).toThrow(usage(/^--offset wants a size/));
  }
});

test("a size that a number cannot hold exactly is refused", () => {
  expect(parseSize("8191T", "--offset")).toBe(8191 * 1024 ** 4);
  expect(() => parseSize("8192T", "--offset")).toThrow(usage(/--offset/));
  expect(() => parseSize("0x20000000000000", "--offset")).toThrow(usage(/--offset/));
});

test("a rate of nothing is refused", () => {
  expect(parsePositiveSize("1", "--rate")).toBe(1);
  expect(() => parsePositiveSize("0K", "--rate")).toThrow(usage(/--rate must be more than 0/));
});

test("seconds become whole milliseconds", () => {
  expect(parseSeconds("60", "--stall-timeout")).toBe(60_000);
  expect(parseSeconds("0.5", "--stall-timeout")).toBe(500);
  expect(parseSeconds(".25", "--stall-timeout")).toBe(250);
  expect(parseSeconds("1.0006", "--stall-timeout")).toBe(1001);
  expect(parseSeconds("0", "--stall-timeout")).toBe(0);
});

test("seconds that are none, or more than a timer can wait, are refused", () => {
  for (const text of ["", ".", "-1", "1s", "1e3", "Infinity", "NaN", "2147484"]) {
    expect(() => parseSeconds(text, "--stall-timeout"), text).toThrow(
      usage(/^--stall-timeout wants seconds/),
    );
  }
  expect(() => parsePositiveSeconds("0.0001", "--connect-timeout")).toThrow(usage(/at least 0.001/));
});

test("integers keep to their range", () => {
  const parse = parseInteger(1, 256);
  expect(parse("1", "--workers")).toBe(1);
  expect(parse("256", "--workers")).toBe(256);
  for (const text of ["0", "257", "", "-1", "1.0", "0x10", "4K"]) {
    expect(() => parse(text, "--workers"), text).toThrow(
      usage(/--workers wants a whole number from 1 to 256/),
    );
  }
});

test("a choice is one of its words", () => {
  const parse = parseChoice(["auto", "on", "off"]);
  expect(parse("on", "--direct-io")).toBe("on");
  expect(() => parse("ON", "--direct-io")).toThrow(usage(/--direct-io is one of auto, on, off, not "ON"/));
});

test("a pair is cut at its first equals sign", () => {
  expect(parsePair("cmd=-m 1G,a=b", "--meta")).toEqual(["cmd", "-m 1G,a=b"]);
  expect(parsePair("empty=", "--meta")).toEqual(["empty", ""]);
  for (const text of ["", "=x", "key", "two words=x", "a\nb=x", `${"k".repeat(129)}=x`]) {
    expect(() => parsePair(text, "--meta"), text).toThrow(usage(/--meta wants KEY=VALUE/));
  }
});

test("what a refused pair contains does not all end up in the message", () => {
  expect(() => parsePair("s".repeat(1000), "--meta")).toThrow(
    expect.objectContaining({ message: expect.not.stringMatching(/s{41}/) }),
  );
});
