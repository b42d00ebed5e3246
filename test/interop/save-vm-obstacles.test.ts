import { truncate, writeFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { useHelpers } from "../support/helper-process.ts";
import { type OperatorVm, useOperatorVms } from "../support/operator-vm.ts";
import { describeEachQemu } from "../support/qemus.ts";
import { settingsOf } from "../support/vm-flows.ts";

describeEachQemu("a VM that was set up for something else", (binary) => {
  const vms = useOperatorVms();
  const start = useHelpers();
  const save = (vm: OperatorVm, ...more: string[]) =>
    start(["save", vms.file("vm.mfd"), "--json", "--qmp", vm.monitorPath, "--then", "resume", ...more]);
  const guest = { binary, ramBytes: 64 * 2 ** 20 };

  test("TLS credentials for its migrations are put aside and back", async () => {
    const extraArgs = ["-object", "tls-creds-anon,id=tls0,endpoint=client"];
    const vm = await vms.start({ ...guest, extraArgs });
    await vm.qmp.execute("migrate-set-parameters", { "tls-creds": "tls0" });
    const before = await settingsOf(vm.qmp);
    await save(vm).success();
    expect(await settingsOf(vm.qmp)).toEqual(before);
  });

  test("a backup of its disk goes on: refused, as QEMU would at the end", async () => {
    const disk = vms.file("disk.raw");
    await writeFile(disk, "");
    await truncate(disk, 2 ** 26);
    const vm = await vms.start({ ...guest, disks: [{ path: disk, bus: "virtio" }] });
    const [block] = (await vm.qmp.execute("query-block")) as { inserted: { "node-name": string } }[];
    await vm.qmp.execute("drive-backup", {
      device: block?.inserted["node-name"],
      "job-id": "nightly",
      target: vms.file("backup.raw"),
      ...{ format: "raw", sync: "full", speed: 1000 },
    });
    expect(await save(vm).failure()).toMatchObject({
      code: "VM_STATE",
      message: expect.stringContaining("nightly"),
    });
    expect(await vm.status()).toBe("running");
  });

  test("compression without channels: refused instead of left out", async () => {
    const vm = await vms.start(guest);
    const failure = await save(vm, "--channels", "0", "--compression", "zlib").failure();
    expect(failure).toMatchObject({ code: "USAGE", status: 2 });
  });

  test("a runtime directory that is not there: told, and not waited for", async () => {
    const vm = await vms.start(guest);
    const args = ["save", vms.file("vm.mfd"), "--json", "--qmp", vm.monitorPath];
    const shell = 'XDG_RUNTIME_DIR=/proc/not-there exec "$0" "$@"';
    const failure = await start(args, { shell }).failure();
    expect(failure).toMatchObject({ code: "IO", message: expect.stringContaining("XDG_RUNTIME_DIR") });
    expect(await vm.status()).toBe("running");
  });
});
