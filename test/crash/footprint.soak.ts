import { afterEach, beforeEach, test } from "vitest";
import { expectNoGrowth, footprint } from "../support/footprint.ts";
import { useHelpers } from "../support/helper-process.ts";
import { Lab } from "../support/lab.ts";
import { describeEachQemu } from "../support/qemus.ts";

const MIB = 2 ** 20;

describeEachQemu("what a run costs", (binary) => {
  const start = useHelpers();
  let lab: Lab;
  beforeEach(async () => {
    lab = await Lab.open();
  });
  afterEach(() => lab.close());

  test("memory does not grow with the guest, up to 4 GiB", async () => {
    const small = await footprint({ lab, start, binary }, { ramBytes: 512 * MIB, channels: 4 });
    const large = await footprint({ lab, start, binary }, { ramBytes: 4096 * MIB, channels: 4 });
    expectNoGrowth(small, large);
  });
});
