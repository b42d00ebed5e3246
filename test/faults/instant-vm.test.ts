import { copyFileSync, readFileSync } from "node:fs";
import { open } from "node:fs/promises";
import path from "node:path";
import { expect, test } from "vitest";
import { inspect } from "../../src/index.ts";
import { untilMigration, useInstantVms } from "../support/instant-vms.ts";
import { describeEachQemu } from "../support/qemus.ts";

const SLOW = ["--background-rate", "4M"];

describeEachQemu("a guest that runs while its RAM follows", (binary) => {
  const vms = useInstantVms(binary, "dirtier");

  test("outlives its data plane, killed and stopped", async () => {
    const vm = await vms.waiting();
    const rate = ["--background-rate", "6M"];
    const helper = vms.restore(["--instant", "--json", ...rate, "--qmp", vm.monitorPath]);
    await helper.waitEvent("vm", ({ state }) => state === "running");
    const first = await vms.dataPlane(helper);
    process.kill(first, "SIGKILL");
    const second = await vms.dataPlane(helper, first);
    await vms.serving(helper);
    process.kill(second, "SIGSTOP");
    await vms.dataPlane(helper, second);
    await vms.expectAlive();
    expect(await helper.success()).toMatchObject({ instant: { runningMs: expect.any(Number) } });
    expect(helper.stderr).toMatch(/was ended by SIGKILL.*said nothing for 3 s/s);
    await vms.expectWhole(vm.qmp);
  });

  test("gets all its RAM when only the supervisor is killed", async () => {
    const { helper, monitor } = vms.launch(["--background-rate", "16M"]);
    await helper.waitEvent("vm", ({ state }) => state === "running");
    const qmp = await monitor();
    process.kill(helper.pid, "SIGKILL");
    await untilMigration(qmp, "completed");
    await vms.expectAlive();
    await vms.expectWhole(qmp);
    await qmp.execute("quit");
  });

  test("is gone on with when everything was killed, also where QEMU's main loop waits for a page", async () => {
    const { helper, monitor } = vms.launch(SLOW);
    await helper.waitEvent("vm", ({ state }) => state === "running");
    const qmp = await monitor();
    const qemu = qmp.pid as number;
    const plane = await vms.dataPlane(helper);
    process.kill(helper.pid, "SIGKILL");
    process.kill(plane, "SIGKILL");
    await untilMigration(qmp, "postcopy-paused");
    await vms.untilItWaits(qemu);
    // It waits for the virtual processor, which waits for a page.
    await expect(qmp.execute("stop", undefined, { timeoutMs: 1000 })).rejects.toMatchObject({
      details: { awaited: "stop" },
    });
    const resumed = vms.restore(["--resume", "--json", "--qmp", privateMonitorOf(qemu)]);
    await resumed.success();
    await vms.expectWhole(qmp);
    await qmp.execute("quit");
  });

  test("is gone on with although the former data plane hangs and has the image's lock", async () => {
    const vm = await vms.waiting();
    const helper = vms.restore(["--instant", "--json", ...SLOW, "--qmp", vm.monitorPath]);
    await helper.waitEvent("vm", ({ state }) => state === "running");
    const plane = await vms.dataPlane(helper);
    process.kill(plane, "SIGSTOP");
    process.kill(helper.pid, "SIGKILL");
    const resumed = vms.restore(["--resume", "--json", "--qmp", vm.monitorPath]);
    await resumed.success();
    await vms.expectAlive();
    await vms.expectWhole(vm.qmp);
  });
});

describeEachQemu("a damaged image of a VM that runs already", (binary) => {
  const vms = useInstantVms(binary, "paused");

  test("is told with its range and the ways out, and a good copy goes on", async () => {
    const copy = vms.file("copy.mr");
    copyFileSync(vms.image, copy);
    await damagePages(vms.image);
    const vm = await vms.waiting();
    const helper = vms.restore(["--instant", "--json", "--qmp", vm.monitorPath]);
    const failure = await helper.failure();
    expect(failure).toMatchObject({
      ...{ code: "IMAGE_DAMAGED", status: 4, details: { ran: true } },
      message: expect.stringContaining(`restore COPY --resume --force --qmp ${vm.monitorPath}`),
    });
    await untilMigration(vm.qmp, "postcopy-paused");
    const resumed = vms.restore(["--resume", "--force", "--json", "--qmp", vm.monitorPath], copy);
    await resumed.success();
    await vms.expectWhole(vm.qmp);
  });
});

/** The monitor that the helper gave a QEMU of its own. */
function privateMonitorOf(pid: number): string {
  const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
  const monitor = words.find((word) => word.startsWith("unix:") && word.includes("multifd-vm-"));
  return path.resolve((monitor ?? "").slice("unix:".length).split(",")[0] ?? "");
}

/** Of some pages in a row at least one is not zero, and so in the file. */
async function damagePages(image: string): Promise<void> {
  const report = await inspect({ image });
  const blocks = report.format === "mapped-ram" ? report.blocks : [];
  const { pagesOffset } = blocks.find(({ name }) => name === "ram") as { pagesOffset: number };
  const file = await open(image, "r+");
  for (let page = 5000; page < 5064; page++) {
    const at = pagesOffset + 4096 * page + 17;
    const { buffer } = await file.read(Buffer.alloc(1), 0, 1, at);
    await file.write(
      buffer.map((byte) => byte ^ 1),
      0,
      1,
      at,
    );
  }
  await file.close();
}
