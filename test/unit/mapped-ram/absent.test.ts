import fc from "fast-check";
import { expect, test } from "vitest";
import { absentRuns } from "../../../src/control/mapped-ram/absent.ts";

test("runs of absent pages are those of the bitmap", () => {
  fc.assert(
    fc.property(fc.array(fc.boolean(), { minLength: 1, maxLength: 200 }), (present) => {
      const bits = new Uint8Array(Math.ceil(present.length / 64) * 8);
      for (const [page, set] of present.entries())
        if (set) bits[page >> 3] = (bits[page >> 3] ?? 0) | (1 << (page & 7));
      const found = present.map(() => true);
      for (const { first, count } of absentRuns(bits, present.length))
        found.fill(false, first, first + count);
      expect(found).toEqual(present);
    }),
  );
});
