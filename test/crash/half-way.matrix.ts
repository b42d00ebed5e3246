import { afterAll, beforeAll, describe, test } from "vitest";
import { useCli } from "../support/cli-run.ts";
import { HalfWay } from "../support/half-way.ts";
import { Lab } from "../support/lab.ts";
import { describeEachQemu } from "../support/qemus.ts";
import { useVms } from "../support/vms.ts";

/** Each failure names its own TEST_SEED, which repeats it. */
const TIMES = Array.from({ length: 10 }, (_, number) => number);

describeEachQemu("a restore given up half-way ends QEMU cleanly", (binary) => {
  const vms = useVms();
  const cli = useCli();
  let lab: Lab;
  let halfWay: HalfWay;
  beforeAll(async () => {
    lab = await Lab.open();
    halfWay = new HalfWay(binary, lab, vms, cli);
    await halfWay.prepare();
  });
  afterAll(() => lab.close());

  for (const channels of [4, 16, 0] as const) {
    describe(`${channels} channels`, () => {
      for (const signal of ["SIGTERM", "SIGKILL"] as const) {
        test.each(TIMES)(`%i: ${signal} ends the helper`, async () => {
          const { guest, hint } = await halfWay.signalled(channels, signal);
          await guest.monitor.expectCleanEnd(hint);
        });
      }

      test.each(TIMES)("%i: a block in the middle is damaged", () => halfWay.damaged(channels));

      test.each(TIMES)("%i: a worker dies", () => halfWay.bereft(channels));
    });
  }
});
