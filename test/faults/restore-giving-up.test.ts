import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { restore } from "../../src/index.ts";
import { useCli } from "../support/cli-run.ts";
import { HalfWay } from "../support/half-way.ts";
import { Lab } from "../support/lab.ts";
import { saveLiveGuest } from "../support/live-image.ts";
import { describeEachQemu } from "../support/qemus.ts";
import { useVms } from "../support/vms.ts";

const MIB = 2 ** 20;

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

  // `npm run crash-matrix` does this at many more random points.
  for (const channels of [4, 16, 0] as const) {
    for (const signal of ["SIGTERM", "SIGKILL"] as const) {
      test(`${signal} ends the helper, ${channels} channels`, async () => {
        const { guest, hint } = await halfWay.signalled(channels, signal);
        await guest.monitor.expectCleanEnd(hint);
      });
    }

    test(`a block in the middle is damaged, ${channels} channels`, () => halfWay.damaged(channels));

    test(`a worker dies, ${channels} channels`, () => halfWay.bereft(channels));
  }

  test("a guest that ran while it was saved, whose stream has many barriers", async () => {
    const image = lab.file("live");
    await saveLiveGuest(vms, { binary, ramBytes: 64 * MIB, channels: { channels: 4 }, rounds: 4, image });
    for (const signal of ["SIGTERM", "SIGKILL"] as const) {
      // It has no disk as the saved guest had; RAM comes first, so that this is never noticed.
      const { guest, hint } = await halfWay.signalled(4, signal, image, { accelerator: "tcg" });
      await guest.monitor.expectCleanEnd(hint);
    }
  });

  test.each(["main", 0, 7])(
    "cancelled while connecting, behind %s: QEMU is gone or answers",
    async (last) => {
      const guest = await halfWay.incoming(16);
      const abort = new AbortController();
      const started = performance.now();
      const run = restore({
        image: halfWay.image(16),
        connect: guest.address,
        signal: abort.signal,
        onEvent: (event) => {
          if (event.event === "channel" && event.channel === last) abort.abort();
        },
      });
      await expect(run).rejects.toMatchObject({ code: "CANCELLED" });
      expect(performance.now() - started).toBeLessThan(2500);
      // Without all its channels QEMU does not begin to load, and so sees no cut; the manager has to end it.
      const ended = await Promise.race([guest.vm.exited, sleep(300, null)]);
      if (ended === null) await guest.monitor.alive();
      guest.monitor.stop();
    },
  );

  test("a QEMU that is stopped cannot keep the helper", async () => {
    const guest = await halfWay.incoming(4);
    guest.monitor.stop();
    const image = halfWay.image(4);
    const run = cli([
      "restore",
      image,
      "--connect",
      guest.address,
      "--rate",
      `${await halfWay.rateOf(image)}`,
    ]);
    await run.until(({ event }) => event === "progress");
    process.kill(guest.vm.pid, "SIGSTOP");
    run.kill("SIGTERM");
    const { status, elapsedMs } = await run.finished;
    expect(status).toBe(143);
    expect(elapsedMs).toBeLessThan(10_000);
  });

  if (binary.major >= 10) {
    test.each([4, 16, 0] as const)(
      "exit-on-error off: QEMU stays and says failed, %i channels",
      async (channels) => {
        const { guest, hint } = await halfWay.signalled(channels, "SIGKILL", halfWay.image(channels), {
          exitOnError: false,
        });
        await guest.monitor.expectFailedStatus(hint);
        guest.monitor.stop();
      },
    );
  }
});
