import { expect, test } from "vitest";
import { createRamFile } from "../../src/demo/ram-file.ts";
import { fillRam } from "../../src/demo/ram-pattern.ts";
import { useHelpers } from "../support/helper-process.ts";
import { type OperatorVm, useOperatorVms } from "../support/operator-vm.ts";
import { describeEachQemu } from "../support/qemus.ts";
import { settingsOf, untilStatus } from "../support/vm-flows.ts";

const RAM = 2 ** 26;

describeEachQemu("a VM that cannot be saved now is told in one sentence, and left as it is:", (binary) => {
  const vms = useOperatorVms();
  const start = useHelpers();

  async function vm(): Promise<OperatorVm> {
    return await vms.start({ binary, ramBytes: RAM });
  }

  async function refusal({ monitorPath }: OperatorVm): Promise<unknown> {
    return await start(["save", vms.file("vm.mfd"), "--json", "--qmp", monitorPath]).failure();
  }

  test("it migrates already, for somebody else", async () => {
    const ram = await createRamFile(RAM);
    await fillRam(ram.path, RAM, 1);
    const busy = await vms.start({
      binary,
      ramBytes: RAM,
      ramPath: ram.path,
    });
    await busy.qmp.execute("migrate-set-parameters", { "max-bandwidth": 2 ** 16 });
    const before = await settingsOf(busy.qmp);
    await busy.qmp.execute("migrate", { uri: "exec:cat >/dev/null" });
    expect(await refusal(busy)).toMatchObject({
      code: "VM_STATE",
      status: 7,
      message: expect.stringMatching(
        /is migrating already \(\w+\): wait for its end, or cancel that migration/,
      ),
    });
    expect(await busy.qmp.execute("query-migrate")).toMatchObject({ status: "active" });
    expect(await settingsOf(busy.qmp)).toEqual(before);
    await ram.close();
  });

  test("it was migrated, and waits for what becomes of it", async () => {
    const migrated = await vm();
    await migrated.qmp.execute("migrate", { uri: "exec:cat >/dev/null" });
    await untilStatus(migrated.qmp, "postmigrate");
    expect(await refusal(migrated)).toMatchObject({
      code: "VM_STATE",
      message: expect.stringContaining("its state was migrated already; say cont to it first"),
    });
    expect(await migrated.status()).toBe("postmigrate");
  });

  test("it was saved with --then pause, and not let run since", async () => {
    const saved = await vm();
    const image = vms.file("vm.mfd");
    await start(["save", image, "--json", "--qmp", saved.monitorPath, "--then", "pause"]).success();
    expect(await refusal(saved)).toMatchObject({ code: "VM_STATE" });
    await saved.qmp.execute("cont");
    await start(["save", image, "--json", "--qmp", saved.monitorPath]).success();
  });
});
