import fs from "node:fs";
import { expect, test } from "vitest";
import { verify } from "../../src/index.ts";
import type { QemuBinary } from "../../src/vm/find-qemu.ts";
import { migrateTo, waitMigration } from "../../src/vm/migration.ts";
import type { QemuProcess } from "../../src/vm/qemu-process.ts";
import { pickAccelerator } from "../support/accelerator.ts";
import { configure } from "../support/lab.ts";
import { describeAsRoot, NOBODY } from "../support/other-user.ts";
import { describeEachQemu } from "../support/qemus.ts";
import { useRawListeners } from "../support/raw-listener.ts";
import { useSaves } from "../support/save-under-test.ts";
import { useVms } from "../support/vms.ts";

const RAM_BYTES = 64 * 2 ** 20;
const CHANNELS = { channels: 4 };

describeAsRoot("a QEMU that has become another user, as libvirt's do", () => {
  describeEachQemu("saves", (binary) => {
    const vms = useVms();
    const { scratch, listening } = useSaves();
    const rawListener = useRawListeners();
    const image = (): string => scratch.file("vm.mfd");

    async function source(): Promise<QemuProcess> {
      const { vm } = await startAsNobody(binary);
      await configure(vm, CHANNELS);
      // Passable, as the directories of managers are.
      fs.chmodSync(scratch.directory, 0o711);
      return vm;
    }

    async function startAsNobody(qemu: QemuBinary): Promise<{ vm: QemuProcess }> {
      const accelerator = await pickAccelerator(qemu);
      const user = `${NOBODY}:${NOBODY}`;
      const extraArgs = qemu.major < 10 ? ["-runas", user] : ["-run-with", `user=${user}`];
      return vms.start(qemu, { ramBytes: RAM_BYTES, accelerator, extraArgs });
    }

    test("with --allow-uid, and the image stays ours", async () => {
      const vm = await source();
      const { helper, address } = await listening(image(), ["--allow-uid", `${NOBODY}`, "--channels", "4"]);
      await migrateTo(vm.qmp, address);
      await Promise.all([helper.success(), waitMigration(vm.qmp, 30_000)]);
      expect(fs.statSync(image())).toMatchObject({ uid: 0, mode: 0o100600 });
      await verify({ image: image(), workers: 1 });
    });

    test("with --allow-uid from a private directory in one that everybody may write to", async () => {
      const vm = await source();
      fs.chmodSync(scratch.directory, 0o1777);
      const { helper, address } = await listening(image(), ["--allow-uid", `${NOBODY}`]);
      expect(address).toContain(".multifd-");
      await migrateTo(vm.qmp, address);
      await Promise.all([helper.success(), waitMigration(vm.qmp, 30_000)]);
    });

    test("not without it: the migration fails, the VM goes on, and so does the helper", async () => {
      const vm = await source();
      const fd = rawListener(scratch.file("managers"));
      fs.chmodSync(scratch.file("managers"), 0o666);
      const { helper } = await listening(image(), ["--listen", "fd:3"], { fds: [fd] });
      await migrateTo(vm.qmp, `unix:${scratch.file("managers")}`);
      await expect(waitMigration(vm.qmp, 30_000)).rejects.toMatchObject({ details: { status: "failed" } });
      expect(helper.stderr).toContain(`"uid":${NOBODY}`);
      await vm.qmp.execute("cont");
      helper.signal("SIGTERM");
      expect(await helper.failure()).toMatchObject({ status: 143 });
    });
  });
});
