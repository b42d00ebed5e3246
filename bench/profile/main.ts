import { rm, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { findRepoRoot } from "../../test/support/repo.ts";
import { helper } from "../peers/helper.ts";
import { openStage } from "../peers/measure.ts";
import { PLAN_OPTIONS, planOf } from "../peers/options.ts";
import type { RestorePeer, SavePeer } from "../peers/peer.ts";
import { qemuMappedRam } from "../peers/qemu-mapped-ram.ts";
import { running } from "../peers/running.ts";
import type { Stage } from "../peers/stage.ts";
import { type Profile, renderProfiles } from "./page.ts";
import { recorded, samplesOf } from "./record.ts";
import { shareOut } from "./shares.ts";

/*
 * Says where the processor time of saves and restores goes, by perf, which must be there and may want root: writes
 * docs/profiles.md. One run each, after one of warm-up; the table is of the last.
 */

const CHANNELS = [1, 4] as const;

const ways = (channels: number): readonly (SavePeer & RestorePeer)[] => [
  helper({ channels }),
  helper({ channels, format: "mapped-ram" }),
  qemuMappedRam(channels, true),
];

await running(async (signal) => {
  const { values } = parseArgs({
    options: { ...PLAN_OPTIONS, out: { type: "string", default: join(findRepoRoot(), "docs/profiles.md") } },
  });
  const { stage, setting } = await openStage(planOf(values), signal);
  const profiles: Profile[] = [];
  try {
    for (const channels of CHANNELS)
      for (const way of ways(channels)) profiles.push(...(await both(stage, channels, way)));
  } finally {
    await stage.close();
  }
  const { ramBytes } = stage.options;
  await writeFile(values.out, renderProfiles({ setting, ramBytes, cores: availableParallelism(), profiles }));
  console.log(`written: ${values.out}`);
});

/** A save and a restore, each looked at the second time. */
async function both(stage: Stage, channels: number, way: SavePeer & RestorePeer): Promise<Profile[]> {
  const guest = await stage.guest();
  const image = stage.file("image");
  const look = async (run: "save" | "restore", work: () => Promise<{ ms: number }>): Promise<Profile> => {
    const file = stage.file("perf.data");
    await work();
    if (run === "save") await rm(image, { force: true });
    const { ms } = await recorded(file, stage.signal, work);
    return { run, channels, way: way.name, ms, shares: await shareOut(samplesOf(file)) };
  };
  const saved = await look("save", () => stage.save(way, guest, image));
  const restored = await look("restore", () => stage.restore(way, image));
  await stage.clear();
  return [saved, restored];
}
