import { existsSync } from "node:fs";
import { expect, test } from "vitest";
import { HELPER, useManagedVms } from "../support/managed-vms.ts";
import { describeEachQemu } from "../support/qemus.ts";
import { restoreVm, saveVm } from "../support/sample-manager.ts";

describeEachQemu("a manager that knows the contract alone", (binary) => {
  const vms = useManagedVms();

  test.each([4, 0])("saves and restores a VM over %i channels", async (channels) => {
    const image = vms.file("vm.mfd");
    const files = { image, directory: vms.directory };
    const source = await vms.source(binary);
    expect(await saveVm(HELPER, { qmp: source.qmp, ...files }, channels)).toMatchObject({
      qemu: "completed",
      exitStatus: 0,
      last: { event: "completed", image: { path: image, multifdChannels: channels } },
    });
    const destination = await vms.destination(binary);
    expect(await restoreVm(HELPER, { qmp: destination.qmp, ...files })).toMatchObject({
      qemu: "completed",
      exitStatus: 0,
      last: { event: "completed" },
    });
    expect(await vms.differing(source, destination)).toBe(0);
  });

  test("keeps no image of a migration that was cancelled, and tries again", async () => {
    const image = vms.file("vm.mfd");
    const source = await vms.source(binary);
    const files = { qmp: source.qmp, image, directory: vms.directory };
    const cancelled = await saveVm(HELPER, files, 4, true);
    expect(cancelled).toMatchObject({ qemu: "cancelled", exitStatus: 3, last: { event: "failed" } });
    expect(existsSync(image)).toBe(false);
    expect(await saveVm(HELPER, files, 4)).toMatchObject({ qemu: "completed", exitStatus: 0 });
  });
});
