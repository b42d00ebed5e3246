import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { access, readFile, rm } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { guestArgs } from "../../src/demo/guest.ts";
import type { QemuBinary } from "../../src/vm/find-qemu.ts";
import { migrateTo, setMultifd, waitMigration } from "../../src/vm/migration.ts";
import { describeEachQemu } from "../support/qemus.ts";
import { useVms } from "../support/vms.ts";

const args = guestArgs({ ramBytes: 64 * 2 ** 20, memory: { kind: "anonymous" }, accelerator: "tcg" });
const vms = useVms();

describeEachQemu("a QEMU of ours", (binary) => {
  test("says which version it is, quits when asked and takes its directory along", async () => {
    const vm = await vms.startWith(binary, args);
    const { major, minor, micro } = vm.qmp.version;
    expect(`${major}.${minor}.${micro}`).toBe(binary.version);
    expect(await vm.quit()).toEqual({ code: 0, signal: null });
    await expect(access(vm.directory)).rejects.toThrow("ENOENT");
    expect(await vm.quit()).toEqual({ code: 0, signal: null });
  });

  test("that refuses its arguments is an error with its own words", async () => {
    await expect(vms.startWith(binary, [...args, "-device", "flux-capacitor"])).rejects.toMatchObject({
      code: "QEMU_FAILED",
      message: expect.stringContaining("'flux-capacitor' is not a valid device model name"),
    });
  });

  test("that dies ends whatever waits for it, and says how it died", async () => {
    const vm = await vms.startWith(binary, args);
    process.kill(vm.pid, "SIGKILL");
    await expect(vm.qmp.waitEvent(() => false, 10_000)).rejects.toMatchObject({
      code: "QEMU_FAILED",
      message: expect.stringContaining("was ended by SIGKILL"),
    });
  });

  test("that cannot migrate is an error with its reason", async () => {
    const vm = await vms.startWith(binary, args);
    await setMultifd(vm.qmp, { channels: 2 });
    const toNowhere = migrateTo(vm.qmp, `unix:${vm.socketPath("nobody")}`);
    await expect(toNowhere.then(() => waitMigration(vm.qmp, 10_000))).rejects.toMatchObject({
      code: "QEMU_FAILED",
      message: expect.stringContaining("Failed to connect"),
    });
  });

  test("that nobody receives from is not waited for without end", async () => {
    const vm = await vms.startWith(binary, [...args, "-incoming", "defer"]);
    await expect(waitMigration(vm.qmp, 50)).rejects.toMatchObject({
      code: "QEMU_FAILED",
      message: expect.stringContaining('still "none" after 50 ms'),
    });
  });
});

describeEachQemu("a QEMU whose parent ends", (binary) => {
  test("ends with a parent that exits, and takes its directory along", async () => {
    const { parent, pid, directory } = await startInChild(binary, 'throw new Error("a bug")');
    await once(parent, "exit");
    await untilGone(pid);
    await expect(access(directory)).rejects.toThrow("ENOENT");
  });

  test("ends with a parent that is killed", async () => {
    const { parent, pid, directory } = await startInChild(binary, "setInterval(() => {}, 1000)");
    parent.kill("SIGKILL");
    await untilGone(pid);
    await rm(directory, { recursive: true }); // with its sockets: a killed process cannot clean up
  });
});

/** Another process that starts a QEMU, tells us, and goes on with the statement `then`. */
async function startInChild(
  binary: QemuBinary,
  then: string,
): Promise<{ parent: ChildProcess; pid: number; directory: string }> {
  const module = new URL("../../src/vm/qemu-process.js", import.meta.url);
  const script = `
    import { startQemu } from ${JSON.stringify(module.href)};
    const { pid, directory } = await startQemu(${JSON.stringify({ binary, args })});
    console.log(JSON.stringify({ pid, directory }));
    setTimeout(() => { ${then} }, 50);`;
  const parent = spawn(process.execPath, ["--input-type=module", "-e", script], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  const [line] = await once(parent.stdout, "data");
  return { parent, ...JSON.parse(String(line)) };
}

/** Gone, or a zombie that only waits for its new parent to notice. */
async function untilGone(pid: number): Promise<void> {
  const deadline = Date.now() + 10_000;
  for (;;) {
    const status = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => undefined);
    if (status === undefined || /\) [ZX] /.test(status)) return;
    if (Date.now() > deadline) throw new Error(`QEMU ${pid} outlived its parent by 10 s`);
    await sleep(10);
  }
}
