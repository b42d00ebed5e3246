import { writeFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, expect, test } from "vitest";
import { compareFiles } from "../../src/demo/ram-pattern.ts";
import { verify } from "../../src/index.ts";
import { dirtierDisk } from "../support/boot-sector.ts";
import { checkDirtyRam, currentPass, type DirtyRam } from "../support/dirty-ram.ts";
import { dropLastPackets } from "../support/image-surgery.ts";
import { inspectStream } from "../support/inspecting.ts";
import { type Guest, type GuestSetup, Lab } from "../support/lab.ts";
import { describeEachQemu } from "../support/qemus.ts";

const MIB = 2 ** 20;
const RAM = 256 * MIB;
const WALKED = { start: MIB, end: RAM };

describeEachQemu("a guest that dirties its memory while it is saved", (binary) => {
  let lab: Lab;
  let setup: GuestSetup;
  beforeEach(async () => {
    lab = await Lab.open();
    const bootDisk = lab.file("disk");
    await writeFile(bootDisk, dirtierDisk(WALKED));
    setup = { binary, ramBytes: RAM, bootDisk };
  });
  afterEach(() => lab.close());

  /** The guest runs and dirties its RAM through several passes of the migration. */
  async function saveLive(channels: number, image: string): Promise<Guest> {
    const source = await lab.source(setup);
    await source.vm.qmp.execute("cont");
    await untilPass(source, 3);
    await lab.save(source, { channels, livePasses: 3 }, { image, workers: 2 });
    return source;
  }

  async function untilPass(guest: Guest, pass: number): Promise<void> {
    const deadline = Date.now() + 60_000;
    while ((await currentPass(guest.ram?.path as string, WALKED)) < pass) {
      if (Date.now() > deadline) throw new Error(`the guest has not reached pass ${pass}`);
      await sleep(20);
    }
  }

  function checkGuest(guest: Guest): Promise<DirtyRam> {
    return checkDirtyRam(guest.ram?.path as string, WALKED);
  }

  for (const channels of [4, 64]) {
    test(`${channels} channels: it comes back as it was at its stop, and runs on`, async () => {
      const image = lab.file("vm.mfd");
      const source = await saveLive(channels, image);
      expect((await inspectStream(image)).channels[0]?.syncs).toBeGreaterThan(2);
      const destination = await lab.restore(setup, { channels }, image);
      const compared = await compareFiles(source.ram?.path as string, destination.ram?.path as string);
      // KVM writes its clock into one page of the firmware's memory as it loads; nothing else may differ.
      expect(compared.differing).toBeLessThanOrEqual(1);
      expect(compared.firstDifferingPage ?? 0).toBeLessThan(WALKED.start / 4096);
      const atRest = await checkGuest(destination);
      expect(atRest.violations).toBe(0);

      await destination.vm.qmp.execute("cont");
      await sleep(10_000);
      await destination.vm.qmp.execute("stop");
      const later = await checkGuest(destination);
      expect(later.violations).toBe(0);
      expect(later.sequence).toBeGreaterThan(atRest.sequence);
    });
  }

  test("the checker is no formality: without one channel's last packets it finds violations", async () => {
    const image = lab.file("vm.mfd");
    await saveLive(4, image);
    await dropLastPackets(image, lab.file("cut.mfd"));
    // Whole as an image: nothing but the guest's memory can tell.
    await verify({ image: lab.file("cut.mfd") });
    const destination = await lab.restore(setup, { channels: 4 }, lab.file("cut.mfd"));
    expect((await checkGuest(destination)).violations).toBeGreaterThan(0);
  });
});
