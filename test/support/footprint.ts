import { stat } from "node:fs/promises";
import { expect } from "vitest";
import type { QemuBinary } from "../../src/vm/find-qemu.ts";
import { migrateTo, waitMigration } from "../../src/vm/migration.ts";
import type { StartHelper } from "./helper-process.ts";
import { configure, type Lab } from "./lab.ts";
import { peakOf } from "./peak-memory.ts";

/** What a save, a restore and a verification of one guest cost. */
export interface Footprint {
  readonly saveMiB: number;
  readonly restoreMiB: number;
  readonly verifyMiB: number;
  readonly fileBytes: number;
  readonly dataBytes: number;
}

/** Memory does not depend on the guest's size. */
export function expectNoGrowth(small: Footprint, large: Footprint): void {
  expect(large.saveMiB - small.saveMiB).toBeLessThanOrEqual(16);
  expect(large.restoreMiB - small.restoreMiB).toBeLessThanOrEqual(16);
  expect(large.verifyMiB - small.verifyMiB).toBeLessThanOrEqual(16);
}

/** Where a footprint is taken. */
export interface Place {
  readonly lab: Lab;
  readonly start: StartHelper;
  readonly binary: QemuBinary;
}

interface Size {
  readonly ramBytes: number;
  readonly channels: number;
}

/** Saves a guest, which is gone then. */
export async function saved(
  { lab, start, binary }: Place,
  { ramBytes, channels }: Size,
  format: "stream" | "mapped-ram" = "stream",
): Promise<{ image: string; saveMiB: number; dataBytes: number }> {
  const image = lab.file(`${ramBytes}-${channels}.${format}`);
  const source = await lab.source({ binary, ramBytes });
  await configure(source.vm, { channels });
  const out = `unix:${source.vm.socketPath("out")}`;
  const save = start(["save", image, "--format", format, "--listen", out, "--workers", "2", "--json"]);
  const peak = peakOf(save);
  await save.waitEvent("listening");
  await migrateTo(source.vm.qmp, out);
  const { bytes } = await save.success();
  await source.vm.kill();
  return { image, saveMiB: await peak, dataBytes: Number(bytes) };
}

/** Saves, restores and verifies through the command line and watches how much memory each needs at its peak. */
export async function footprint(place: Place, size: Size): Promise<Footprint> {
  const { lab, start, binary } = place;
  const { ramBytes, channels } = size;
  const { image, saveMiB, dataBytes } = await saved(place, size);

  const into = `unix:${lab.file(`in-${ramBytes}`)}`;
  const destination = await lab.destination({ binary, ramBytes }, { channels }, into);
  const restore = start(["restore", image, "--connect", into, "--workers", "2", "--json"]);
  const restored = peakOf(restore);
  await restore.success();
  const restoreMiB = await restored;
  await waitMigration(destination.vm.qmp, 60_000);
  await destination.vm.kill();

  const verify = start(["verify", image, "--workers", "2", "--json"]);
  const verified = peakOf(verify);
  await verify.success();
  const verifyMiB = await verified;
  const seen = { saveMiB, restoreMiB, verifyMiB, fileBytes: (await stat(image)).size, dataBytes };
  console.info(
    `footprint: QEMU ${binary.version}, ${ramBytes / 2 ** 20} MiB, ${channels} channels: ${JSON.stringify(seen)}`,
  );
  return seen;
}
