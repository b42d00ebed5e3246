import fc from "fast-check";
import { expect, test } from "vitest";
import { idleRuns } from "../../../src/control/mapped-ram/absent.ts";

test("runs of pages that have room and are not present are those of the bitmaps", () => {
  const page = fc.record({ roomy: fc.boolean(), present: fc.boolean() });
  fc.assert(
    fc.property(fc.array(page, { minLength: 1, maxLength: 200 }), fc.boolean(), (pages, allRoomy) => {
      const [roomy, present] = [
        bitmap(pages.map((one) => allRoomy || one.roomy)),
        bitmap(pages.map((one) => one.present)),
      ];
      const found = pages.map(() => false);
      for (const { first, count } of idleRuns(roomy, present, pages.length))
        found.fill(true, first, first + count);
      expect(found).toEqual(pages.map((one) => (allRoomy || one.roomy) && !one.present));
    }),
  );
});

function bitmap(set: readonly boolean[]): Uint8Array {
  const bits = new Uint8Array(Math.ceil(set.length / 64) * 8);
  for (const [page, is] of set.entries())
    if (is) bits[page >> 3] = (bits[page >> 3] ?? 0) | (1 << (page & 7));
  return bits;
}
