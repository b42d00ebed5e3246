import { expect, test } from "vitest";
import { restoreVmInstant, saveVm } from "../../src/index.ts";
import {
  countingDisks,
  countingSetup,
  expectCounting,
  expectOneMoment,
  startCounting,
} from "../support/counting-vm.ts";
import { untilMigration, useInstantVms } from "../support/instant-vms.ts";
import { useOperatorVms } from "../support/operator-vm.ts";
import { describeEachQemu } from "../support/qemus.ts";

const SLOW = ["--background-rate", "2M"];

describeEachQemu("an instant restore of a VM that was saved paused", (binary) => {
  const vms = useInstantVms(binary, "paused");

  test("starts QEMU, and ends with it; all RAM is as it was", async () => {
    const { helper, monitor } = vms.launch([]);
    const completed = await helper.waitEvent("completed");
    const seen = helper.events.map(({ event, state }) => (event === "vm" ? state : event));
    expect(seen.filter((name) => name !== "progress")).toEqual([
      ...["hello", "migrating", "channel", "running", "paused", "completed"],
    ]);
    expect(completed).toMatchObject({
      image: { path: vms.image, format: "mapped-ram" },
      instant: { runningMs: expect.any(Number) },
    });
    const qmp = await monitor();
    expect(await qmp.execute("query-status")).toMatchObject({ status: "paused" });
    await vms.expectWhole(qmp);
    await qmp.execute("quit");
    expect(await helper.exit()).toBe(0);
  });

  test("into a QEMU that waits, --running", async () => {
    const vm = await vms.waiting();
    const helper = vms.restore(["--instant", "--json", "--running", "--qmp", vm.monitorPath]);
    await helper.waitEvent("vm", ({ state }) => state === "running");
    expect(await vm.status()).toBe("running");
    expect(await helper.success()).toMatchObject({ event: "completed" });
    await untilMigration(vm.qmp, "completed");
  });

  test("lets QEMU end before it has all its RAM", async () => {
    const { helper, monitor } = vms.launch(["--running", ...SLOW]);
    await helper.waitEvent("vm", ({ state }) => state === "running");
    await (await monitor()).execute("quit");
    expect(await helper.exit()).toBe(0);
    expect(helper.events.at(-1)).toMatchObject({ event: "vm", state: "ended" });
    expect(helper.stderr).toBe("");
  });

  test("a signal goes to QEMU once the VM is there", async () => {
    const { helper } = vms.launch(SLOW);
    await helper.waitEvent("vm", ({ state }) => state === "paused");
    helper.signal("SIGTERM");
    expect(await helper.exit()).toBe(0);
  });

  test("a signal ends a restore into a QEMU that waited, which --resume goes on with", async () => {
    const vm = await vms.waiting();
    const helper = vms.restore(["--instant", "--json", ...SLOW, "--qmp", vm.monitorPath]);
    await helper.waitEvent("vm", ({ state }) => state === "paused");
    helper.signal("SIGINT");
    expect(await helper.failure()).toMatchObject({
      status: 130,
      code: "CANCELLED",
      message: expect.stringContaining(`restore ${vms.image} --resume --qmp ${vm.monitorPath}`),
      details: { ran: true, signal: "SIGINT" },
    });
    await untilMigration(vm.qmp, "postcopy-paused");
    const resumed = vms.restore(["--resume", "--json", "--qmp", vm.monitorPath]);
    await resumed.success();
    await vms.expectWhole(vm.qmp);
    const again = vms.restore(["--resume", "--json", "--qmp", vm.monitorPath]);
    expect(await again.failure()).toMatchObject({ code: "VM_STATE", message: /it has all its RAM$/ });
  });
});

describeEachQemu("an instant restore by the library, of a guest that writes to its disks", (binary) => {
  const vms = useOperatorVms();

  test("counts on, in memory and on its disks", async () => {
    const disks = await countingDisks(vms);
    const setup = countingSetup(binary, disks);
    const image = vms.file("vm.mr");
    const source = await startCounting(vms, setup);
    await saveVm({ image, format: "mapped-ram", vm: { qmp: source.monitorPath } });
    await source.exited;
    const vm = await vms.start({ ...setup, start: "incoming" });
    const states: string[] = [];
    const completed = await restoreVmInstant({
      image,
      vm: { qmp: vm.monitorPath },
      onEvent: (event) => event.event === "vm" && states.push(event.state),
    });
    expect(completed.image.path).toBe(image);
    expect(states).toEqual(["migrating", "running"]);
    await expectCounting(vm);
    await vm.qmp.execute("stop");
    await expectOneMoment(vm.qmp, disks);
  });
});
