import fc from "fast-check";
import { expect, test } from "vitest";
import {
  decodeMark,
  encodeMark,
  type MarkedImage,
  type ResumedMark,
} from "../../src/formats/mapped-ram/resumed.ts";

const moment = fc.integer({ min: 0, max: 8.64e15 });
const count = fc.maxSafeNat();
const marks: fc.Arbitrary<ResumedMark> = fc.record({
  ...{ resumedMs: moment, completedMs: fc.option(moment), session: fc.uuid() },
  qemu: fc.option(
    fc.record({ pid: fc.integer({ min: 1, max: 2 ** 22 }), startTicks: count, bootId: fc.uuid() }),
  ),
});
const images: fc.Arbitrary<MarkedImage> = fc.record({ uuid: fc.option(fc.uuid()), streamEnd: count });

test("what was written is read", () => {
  fc.assert(
    fc.property(marks, images, (mark, image) => {
      expect(decodeMark(encodeMark(mark, image), image)).toEqual(mark);
    }),
    { numRuns: 300 },
  );
});

test("no changed byte makes another mark of it, or none", () => {
  fc.assert(
    fc.property(marks, images, fc.integer({ min: 1, max: 255 }), (mark, image, bits) => {
      const bytes = encodeMark(mark, image);
      for (let at = 0; at < bytes.length; at++) {
        bytes[at] = (bytes[at] as number) ^ bits;
        expect(() => decodeMark(bytes, image), `byte ${at}`).toThrow();
        bytes[at] = (bytes[at] as number) ^ bits;
      }
    }),
    { numRuns: 3 },
  );
});

test("nor does a mark that stops anywhere, with zeros or an older mark behind it", () => {
  fc.assert(
    fc.property(marks, marks, images, fc.integer({ min: 1, max: 4095 }), (mark, older, image, length) => {
      const written = encodeMark(mark, image);
      for (const before of [new Uint8Array(4096), encodeMark(older, image)]) {
        const torn = Uint8Array.from(before);
        torn.set(written.subarray(0, length));
        let read: ResumedMark | null = null;
        try {
          read = decodeMark(torn, image);
        } catch {
          continue;
        }
        expect([mark, older]).toContainEqual(read);
      }
    }),
    { numRuns: 200 },
  );
});
