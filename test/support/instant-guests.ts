import { Buffer } from "node:buffer";
import { open, writeFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import type { InstantOptions } from "../../src/control/instant/options.ts";
import { type CompletedEvent, restoreInstant } from "../../src/index.ts";
import type { QemuBinary } from "../../src/vm/find-qemu.ts";
import { waitMigration } from "../../src/vm/migration.ts";
import type { QemuProcess } from "../../src/vm/qemu-process.ts";
import { dirtierDisk, WRONG_PAGES } from "./boot-sector.ts";
import { currentPass, type WalkedRange } from "./dirty-ram.ts";
import type { Guest, GuestSetup, Lab } from "./lab.ts";

const MIB = 2 ** 20;
const PATIENCE_MS = 60_000;

/** Lets a QEMU that was started to wait take a migration in postcopy. @returns where it listens */
export async function listenForPostcopy(vm: QemuProcess): Promise<string> {
  const capabilities = [{ capability: "postcopy-ram", state: true }];
  await vm.qmp.execute("migrate-set-capabilities", { capabilities });
  const address = `unix:${vm.socketPath("in")}`;
  await vm.qmp.execute("migrate-incoming", { uri: address });
  return address;
}

/** Lets a QEMU whose source is gone wait for another one. @returns where it listens; null: it had got everything before */
export async function listenAgain(vm: QemuProcess, attempt: number): Promise<string | null> {
  const uri = `unix:${vm.socketPath(`again-${attempt}`)}`;
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    try {
      // Its main thread may itself wait for a page.
      await vm.qmp.execute("migrate-recover", { uri }, { outOfBand: true });
      return uri;
    } catch (error) {
      // It takes a moment until it notices.
      if (!/postcopy is paused/.test(String(error)) || Date.now() > deadline) throw error;
      const { status } = (await vm.qmp.execute("query-migrate")) as { status: string };
      if (status === "completed") return null;
      await sleep(10);
    }
  }
}

/** Restores an image instantly into a new QEMU of this kind, and waits until that calls it complete. */
export async function restoredInstantly(
  lab: Lab,
  setup: GuestSetup,
  options: Omit<InstantOptions, "connect">,
): Promise<Guest & { completed: CompletedEvent }> {
  const guest = await lab.waiting(setup);
  const connect = await listenForPostcopy(guest.vm);
  const completed = await restoreInstant({ workers: 1, ...options, connect });
  await waitMigration(guest.vm.qmp, PATIENCE_MS);
  return { ...guest, completed };
}

/** A guest that walks over its RAM for ever, and counts the pages that do not hold what it has written there. */
export interface CheckingGuest {
  readonly setup: GuestSetup;
  readonly walked: WalkedRange;
}

/** Under TCG, where a guest that touches page after page is quickest in nested virtual machines. */
export async function checkingGuest(lab: Lab, binary: QemuBinary, ramBytes: number): Promise<CheckingGuest> {
  const walked = { start: MIB, end: ramBytes };
  const bootDisk = lab.file("checking-disk");
  await writeFile(bootDisk, dirtierDisk({ ...walked, checks: true }));
  return { walked, setup: { binary, ramBytes, bootDisk, accelerator: "tcg" } };
}

/** Boots it, and saves it in the middle of a pass. @returns the pass */
export async function saveWalking(
  lab: Lab,
  { setup, walked }: CheckingGuest,
  image: string,
): Promise<number> {
  const guest = await lab.source(setup);
  await guest.vm.qmp.execute("cont");
  await untilPass(guest, walked, 2);
  await guest.vm.qmp.execute("stop");
  await lab.save(guest, { channels: 2 }, { image, format: "mapped-ram" });
  const pass = await passOf(guest, walked);
  await guest.vm.quit();
  return pass;
}

/** Waits until it is in this pass, or a later one. */
export async function untilPass(guest: Guest, walked: WalkedRange, pass: number): Promise<void> {
  const deadline = Date.now() + PATIENCE_MS;
  while ((await passOf(guest, walked)) < pass) {
    if (Date.now() > deadline) throw new Error(`the guest does not come to pass ${pass}`);
    await sleep(10);
  }
}

function passOf({ ram }: Guest, walked: WalkedRange): Promise<number> {
  return currentPass(ram?.path as string, walked);
}

/** Pages that the guest found wrong. */
export async function wrongPagesOf({ ram }: Guest): Promise<number> {
  const file = await open(ram?.path as string);
  const { buffer } = await file.read(Buffer.alloc(4), 0, 4, WRONG_PAGES);
  await file.close();
  return buffer.readUInt32LE();
}
