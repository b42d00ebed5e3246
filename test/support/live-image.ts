import { setTimeout as sleep } from "node:timers/promises";
import { save } from "../../src/index.ts";
import type { QmpClient } from "../../src/qmp/client.ts";
import type { QemuBinary } from "../../src/vm/find-qemu.ts";
import { migrateTo, waitMigration } from "../../src/vm/migration.ts";
import { type Channels, configure, untilListening } from "./lab.ts";
import { untilPass, type Vms } from "./vms.ts";

export interface LiveSave {
  readonly binary: QemuBinary;
  readonly ramBytes: number;
  readonly channels: Channels;
  /** How often QEMU must have begun over with what the guest dirtied. */
  readonly rounds: number;
  readonly image: string;
}

/** Saves a guest that dirties its RAM all the time, over as many rounds as asked for, and ends it. Under TCG: see operator-vm.ts. */
export async function saveLiveGuest(vms: Vms, request: LiveSave): Promise<void> {
  const { binary, ramBytes, channels, rounds, image } = request;
  const { vm, ram, walked } = await vms.startDirtier(binary, { ramBytes, accelerator: "tcg" });
  await vm.qmp.execute("cont");
  await untilPass(ram, walked, 2);
  await configure(vm, channels);
  // Never quick enough to stop the guest, until enough rounds are over.
  await vm.qmp.execute("migrate-set-parameters", { "downtime-limit": 1 });
  const listen = `unix:${vm.socketPath("out")}`;
  const { run } = await untilListening(save, { image, listen });
  await migrateTo(vm.qmp, listen);
  await untilRound(vm.qmp, rounds);
  await vm.qmp.execute("migrate-set-parameters", { "downtime-limit": 20_000 });
  await Promise.all([run, waitMigration(vm.qmp, 20_000)]);
  await vm.quit();
}

async function untilRound(qmp: QmpClient, rounds: number): Promise<void> {
  const deadline = Date.now() + 20_000;
  for (;;) {
    const info = (await qmp.execute("query-migrate")) as { ram?: { "dirty-sync-count": number } };
    if ((info.ram?.["dirty-sync-count"] ?? 0) > rounds) return;
    if (Date.now() > deadline) throw new Error(`no ${rounds} rounds in 20 s: ${JSON.stringify(info)}`);
    await sleep(10);
  }
}
