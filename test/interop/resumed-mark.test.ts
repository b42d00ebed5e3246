import { afterAll, beforeAll, expect, test } from "vitest";
import { inspect, verify } from "../../src/index.ts";
import { finishFileRestore, prepareFileRestore } from "../../src/vm/engine-file/restore.ts";
import { migrateTo, waitMigration } from "../../src/vm/migration.ts";
import { failureOf } from "../support/expect-failure.ts";
import {
  differingPages,
  type FileGuest,
  FileLab,
  incoming,
  plainSettings,
  set,
} from "../support/file-lab.ts";
import { GONE, markImage, markOf } from "../support/marked-image.ts";
import { describeBothQemus } from "../support/qemus.ts";

const MIB = 2 ** 20;

describeBothQemus("an image that an instant restore let run, to QEMU", ({ ten }) => {
  const setup = { binary: ten, ramBytes: 32 * MIB };
  let lab: FileLab;
  let source: FileGuest;
  beforeAll(async () => {
    lab = await FileLab.open();
    source = await lab.source(setup);
  });
  afterAll(() => lab.close());

  async function expectLoads(image: string, channels: number, directIo: boolean): Promise<void> {
    const plain = await lab.destination(setup);
    await incoming(plain.vm, plainSettings(channels, directIo), `file:${image}`);
    expect(await differingPages(source, plain)).toBe(0);
    await plain.vm.quit();
  }

  test("is what it was, behind a seal of ours; only we refuse it", async () => {
    const image = lab.file("sealed.mr");
    await lab.save(source, { image, channels: 2 });
    await markImage(image, markOf(GONE));
    await expectLoads(image, 0, false);
    await expectLoads(image, 4, true);
    expect(await verify({ image })).toMatchObject({
      checked: "checksums and structure",
      resumed: { qemu: GONE },
    });
    const { monitor, vm } = await lab.destination(setup);
    const options = { image, channels: 2 };
    expect(await failureOf(prepareFileRestore(monitor, options))).toMatchObject({ code: "VM_RAN_ON" });
    await finishFileRestore(await prepareFileRestore(monitor, { ...options, force: true }));
    await vm.quit();
  });

  test("is what it was, with the mark behind what QEMU wrote", async () => {
    const image = lab.file("foreign.mr");
    await source.vm.qmp.execute("cont");
    await source.vm.qmp.execute("stop");
    await set(source.vm, plainSettings(2, false));
    await migrateTo(source.vm.qmp, `file:${image}`);
    await waitMigration(source.vm.qmp, 60_000);
    const before = await verify({ image });
    await markImage(image, markOf(GONE));
    await markImage(image, markOf(GONE, { completedMs: 1 }));
    await expectLoads(image, 2, false);
    const { elapsedMs: _, ...same } = before;
    expect(await verify({ image })).toMatchObject({ ...same, resumed: { qemu: GONE } });
    expect(await inspect({ image })).toMatchObject({ format: "mapped-ram", sealed: false });
  });
});
