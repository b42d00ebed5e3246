import fc from "fast-check";
import { expect, test } from "vitest";
import { LineSplitter } from "../../../src/qmp/lines.ts";

test("lines come out as they went in, however they were cut", () => {
  const line = fc.string({ unit: "binary" }).filter((text) => !text.includes("\n"));
  fc.assert(
    fc.property(
      fc.array(line),
      fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1 }),
      (lines, cuts) => {
        const bytes = Buffer.from(lines.map((one) => `${one}\n`).join(""));
        const splitter = new LineSplitter(bytes.length);
        const got: string[] = [];
        for (let at = 0, turn = 0; at < bytes.length; turn++) {
          const length = cuts[turn % cuts.length] as number;
          got.push(...(splitter.push(bytes.subarray(at, at + length)) ?? ["too long"]));
          at += length;
        }
        expect(got).toEqual(lines);
        expect(splitter.unfinished).toBe("");
      },
    ),
  );
});

test("a line may be as long as the limit, not longer, ended or not", () => {
  expect(new LineSplitter(3).push(Buffer.from("abc\nde"))).toEqual(["abc"]);
  expect(new LineSplitter(3).push(Buffer.from("abcd\n"))).toBeNull();
  const splitter = new LineSplitter(3);
  expect(splitter.push(Buffer.from("ab"))).toEqual([]);
  expect(splitter.unfinished).toBe("ab");
  expect(splitter.push(Buffer.from("cd"))).toBeNull();
});
