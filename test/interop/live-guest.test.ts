import { writeFile } from "node:fs/promises";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { RamFile } from "../../src/demo/ram-file.ts";
import { compareFiles } from "../../src/demo/ram-pattern.ts";
import { verify } from "../../src/index.ts";
import { dirtierDisk } from "../support/boot-sector.ts";
import { checkDirtyRam, type WalkedRange } from "../support/dirty-ram.ts";
import { dropLastPackets } from "../support/image-surgery.ts";
import { inspectStream } from "../support/inspecting.ts";
import { type Guest, type GuestSetup, Lab } from "../support/lab.ts";
import { describeEachQemu } from "../support/qemus.ts";
import { ramFillingRings } from "../support/ring-ram.ts";
import { untilPass } from "../support/vms.ts";

const MIB = 2 ** 20;

describeEachQemu("a guest that dirties its memory while it is saved", (binary) => {
  let lab: Lab;
  beforeEach(async () => {
    lab = await Lab.open();
  });
  afterEach(() => lab.close());

  /** The guest runs and dirties its RAM through several passes of the migration. */
  async function saveLive(
    channels: number,
    image: string,
    accelerator?: "tcg",
  ): Promise<{ source: Guest; setup: GuestSetup; walked: WalkedRange }> {
    const walked = { start: MIB, end: ramFillingRings(channels) };
    const setup = {
      binary,
      ramBytes: walked.end,
      bootDisk: lab.file("disk"),
      ...(accelerator && { accelerator }),
    };
    await writeFile(setup.bootDisk, dirtierDisk(walked));
    const source = await lab.source(setup);
    await source.vm.qmp.execute("cont");
    await untilPass(source.ram as RamFile, walked, 3);
    await lab.save(source, { channels, livePasses: 3 }, { image, workers: 2 });
    return { source, setup, walked };
  }

  // A boot sector starts several times quicker under TCG (see operator-vm.ts); with KVM a guest dirties its memory otherwise.
  for (const [channels, accelerator] of [
    [4, undefined],
    [64, "tcg"],
  ] as const) {
    test(`${channels} channels: it comes back as it was at its stop, and runs on`, async () => {
      const image = lab.file("vm.mfd");
      const { source, setup, walked } = await saveLive(channels, image, accelerator);
      expect((await inspectStream(image)).channels[0]?.syncs).toBeGreaterThan(2);
      const destination = await lab.restore(setup, { channels }, image);
      const compared = await compareFiles(source.ram?.path as string, destination.ram?.path as string);
      // KVM writes its clock into one page of the firmware's memory as it loads; nothing else may differ.
      expect(compared.differing).toBeLessThanOrEqual(1);
      expect(compared.firstDifferingPage ?? 0).toBeLessThan(walked.start / 4096);
      const ram = destination.ram as RamFile;
      const atRest = await checkDirtyRam(ram.path, walked);
      expect(atRest.violations).toBe(0);

      await destination.vm.qmp.execute("cont");
      // It has written every page again, many times.
      await untilPass(ram, walked, atRest.sequence + 10);
      await destination.vm.qmp.execute("stop");
      expect(await checkDirtyRam(ram.path, walked)).toMatchObject({ violations: 0 });
    });
  }

  test("the checker is no formality: without one channel's last packets it finds violations", async () => {
    const image = lab.file("vm.mfd");
    const { setup, walked } = await saveLive(4, image, "tcg");
    await dropLastPackets(image, lab.file("cut.mfd"));
    // Whole as an image: nothing but the guest's memory can tell.
    await verify({ image: lab.file("cut.mfd") });
    const destination = await lab.restore(setup, { channels: 4 }, lab.file("cut.mfd"));
    const { violations } = await checkDirtyRam(destination.ram?.path as string, walked);
    expect(violations).toBeGreaterThan(0);
  });
});
