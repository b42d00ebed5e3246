import { expect, test } from "vitest";
import { type FaultSpec, withFault } from "../support/fault-spec.ts";
import { useNamedVms } from "../support/named-vms.ts";
import { describeBothQemus } from "../support/qemus.ts";
import { START, type StartStep } from "../support/start-steps.ts";

const failing = (step: StartStep, act: FaultSpec["act"] = "fail") =>
  withFault({ thread: "main", when: "before", act, ...START[step] });

describeBothQemus("a start from a managed image", ({ seven }) => {
  const vms = useNamedVms(seven);

  async function saved(): Promise<number> {
    await vms.start("web", await vms.command("web"));
    await vms.run(["managed-save", "web"]).success();
    return (await vms.serial("web").lines()).length;
  }

  test("that cannot take the image leaves it, and no QEMU; the VM has one life", async () => {
    const told = await saved();
    for (const step of ["rename", "directory flushed after the rename"] as const) {
      const failure = await vms.run(["start", "web", "--detach"], failing(step)).failure();
      expect(failure).toMatchObject({
        code: "IO",
        status: 5,
        message: expect.stringMatching(/its one start/),
      });
      await vms.noQemus();
      expect(await vms.images()).toEqual(["web.mfd"]);
    }
    expect(await vms.serial("web").lines()).toHaveLength(told);
    await vms.start("web");
    await vms.oneLife("web");
  });

  test("that cannot remove the image lets the VM run, and says so", async () => {
    await saved();
    const start = vms.run(["start", "web", "--detach"], failing("removal"));
    await start.waitEvent("started");
    expect(await start.exit()).toBe(0);
    expect(start.stderr).toMatch(/web runs, but removing the used image .* managed-remove web removes it/);
    expect(await vms.images()).toEqual(["web.mfd.resuming"]);
    expect(vms.qemus()).toHaveLength(1);
  });

  test("whose QEMU dies when it is told to run keeps the image out of the way", async () => {
    const told = await saved();
    const failure = await vms.run(["start", "web", "--detach"], failing("cont", "kill-qemu")).failure();
    expect(failure).toMatchObject({ code: "QEMU_FAILED", status: 7 });
    expect(failure.message).toMatch(/web may have run for a moment, .* kept as .*web\.mfd\.resuming/);
    await vms.noQemus();
    expect(await vms.images()).toEqual(["web.mfd.resuming"]);
    expect(await vms.serial("web").lines()).toHaveLength(told);

    expect(await vms.run(["start", "web"]).failure()).toMatchObject({ code: "MANAGED_STATE" });
    const booted = vms.run(["start", "web", "--detach", "--discard"]);
    expect(await booted.waitEvent("started")).toMatchObject({ from: "boot" });
    expect(await booted.exit()).toBe(0);
    expect(await vms.images()).toEqual([]);
  });

  test("that is killed when it has left the VM paused leaves that VM", async () => {
    await saved();
    const start = vms.run(["start", "web", "--detach", "--paused"], failing("removal", "kill"));
    expect(await start.exit()).toBe("SIGKILL");
    expect(vms.qemus()).toHaveLength(1);
    expect(await vms.images()).toEqual(["web.mfd.resuming"]);
    expect(await vms.run(["start", "web"]).failure()).toMatchObject({ code: "VM_STATE" });
  });

  test("that is told to end while it loads leaves the image, and no QEMU", async () => {
    await saved();
    const start = vms.run(["start", "web", "--detach", "--rate", "64K"]);
    await start.waitEvent("vm", ({ state }) => state === "migrating");
    start.signal("SIGTERM");
    expect(await start.failure()).toMatchObject({ code: "CANCELLED", status: 143 });
    await vms.noQemus();
    expect(await vms.images()).toEqual(["web.mfd"]);
    await vms.start("web");
    await vms.oneLife("web");
  });
});
