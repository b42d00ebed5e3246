import { expect, test } from "vitest";
import { fromFailure, MultifdError, toFailure } from "../../src/errors.ts";

test("a typed error survives the trip through plain data", () => {
  const sent = new MultifdError("PROTOCOL", "channel 3 sent nonsense", { channel: 3, offset: 64 });
  const got = fromFailure(structuredClone(toFailure(sent)));
  expect(got).toBeInstanceOf(MultifdError);
  expect(got).toMatchObject({
    code: "PROTOCOL",
    message: sent.message,
    details: sent.details,
    exitStatus: 3,
  });
});
