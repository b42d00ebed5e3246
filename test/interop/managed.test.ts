import { existsSync } from "node:fs";
import { copyFile, readFile, truncate, writeFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { encodeSuperblock, writingSuperblock } from "../../src/formats/image/superblock.ts";
import { useNamedVms } from "../support/named-vms.ts";
import { useOperatorVms } from "../support/operator-vm.ts";
import { describeBothQemus, describeEachQemu } from "../support/qemus.ts";

describeEachQemu("a managed VM", (binary) => {
  const vms = useNamedVms(binary);

  test("is booted once, saved, and goes on in one life, with the monitor that it was given", async () => {
    const command = await vms.command("web");
    const booted = await vms.start("web", command);
    expect(booted.events.at(-1)).toMatchObject({ event: "started", name: "web", from: "boot" });
    expect(await vms.run(["start", "web"]).failure()).toMatchObject({ code: "VM_STATE", status: 7 });

    for (let life = 0; life < 2; life++) {
      const completed = await vms.run(["managed-save", "web", "--channels", "2"]).success();
      expect(completed.image).toMatchObject({ path: await vms.stateFile("web.mfd"), multifdChannels: 2 });
      await vms.noQemus();
      const { value } = await vms.answer("managed-list");
      expect(value).toMatchObject({ images: [{ name: "web", state: "ready", problem: null }] });

      const started = await vms.start("web");
      expect(started.events.at(-1)).toMatchObject({ event: "started", from: "image", pid: vms.qemus()[0] });
      expect(await vms.images()).toEqual([]);
    }
    await vms.oneLife("web");
  });

  test("that QEMU refuses to let run keeps its image, and is started when it can be", async () => {
    const command = await vms.command("web");
    await vms.start("web", command);
    await vms.run(["managed-save", "web"]).success();
    const told = (await vms.serial("web").lines()).length;

    // Loading takes no lock of a disk; letting run does.
    const [holder] = await holdDisk(vms.file("web.disk"));
    const failure = await vms.run(["start", "web", "--detach"]).failure();
    expect(failure).toMatchObject({ code: "QEMU_FAILED", status: 7 });
    expect(failure.message).toMatch(/lock/);
    await vms.noQemus();
    expect(await vms.images()).toEqual(["web.mfd"]);
    expect(await vms.serial("web").lines()).toHaveLength(told);

    await holder.process.quit();
    await vms.start("web");
    await vms.oneLife("web");
  });

  const operators = useOperatorVms();
  /** Another QEMU that may write to this disk. */
  const holdDisk = (path: string) =>
    Promise.all([operators.start({ binary, ramBytes: 2 ** 24, disks: [{ path }], start: "paused" })]);
});

describeBothQemus("managed VMs", ({ ten }) => {
  const vms = useNamedVms(ten);
  const operators = useOperatorVms();

  test("that were saved are started together, and one that cannot be stops no other", async () => {
    for (const name of ["a", "b", "c"]) await vms.saved(name);
    await truncate(await vms.stateFile("b.mfd"), 8192);
    const { status, value } = await vms.answer("start", "--all", "--jobs", "3");
    expect(status).toBe(4);
    expect(value).toEqual({
      vms: [
        { name: "a", started: { from: "image", pid: expect.any(Number) } },
        { name: "b", failed: expect.objectContaining({ code: "IMAGE_DAMAGED" }) },
        { name: "c", started: { from: "image", pid: expect.any(Number) } },
      ],
    });
    for (const name of ["a", "c"]) await vms.oneLife(name);

    const again = await vms.answer("managed-save", "--all");
    expect(again.status).toBe(0);
    expect(again.value).toMatchObject({
      vms: [
        { name: "a", saved: {} },
        { name: "c", saved: {} },
      ],
    });
    await vms.noQemus();
    expect(await vms.answer("managed-save", "--all")).toEqual({ status: 0, value: { vms: [] } });
  });

  test("are started from a good image, or booted on request, and never silently", async () => {
    await vms.saved("web");
    const good = await readFile(await vms.stateFile("web.mfd"));
    // Behind the superblock: found when it is read, with QEMU waiting for it.
    const flipped = Buffer.from(good);
    flipped.writeUInt8(flipped.readUInt8(5000) ^ 1, 5000);
    const unsealed = encodeSuperblock(writingSuperblock("3f0c6a52-2f0e-4c6a-9d4e-0f3a1d1b7a10", 0));
    for (const [bytes, code, state] of [
      [Buffer.alloc(8192), "NOT_AN_IMAGE", "damaged"],
      [good.subarray(0, 300_000), "IMAGE_DAMAGED", "damaged"],
      [unsealed, "NOT_SEALED", "unfinished"],
      [flipped, "IMAGE_DAMAGED", "ready"],
    ] as const) {
      await writeFile(await vms.stateFile("web.mfd"), bytes);
      const { value } = await vms.answer("managed-list");
      expect(value).toMatchObject({ images: [{ state }] });
      const failure = await vms.run(["start", "web", "--detach"]).failure();
      expect(failure).toMatchObject({
        code,
        message: expect.stringMatching(/; start web --discard forgets/),
      });
      await vms.noQemus();
      expect(await vms.images()).toEqual(["web.mfd"]);
      expect(existsSync(await vms.stateFile("web.qmp"))).toBe(false);
    }
    const booted = vms.run(["start", "web", "--discard", "--detach"]);
    expect(await booted.waitEvent("started")).toMatchObject({ from: "boot" });
    expect(await booted.exit()).toBe(0);
    expect(await vms.images()).toEqual([]);
  });

  test("that are another VM are refused, and the image stays", async () => {
    await vms.saved("web");
    const smaller = await vms.command("web", { ramBytes: 16 * 2 ** 20 });
    const failure = await vms.run(["start", "web", "--detach", "--", ...smaller]).failure();
    expect(failure).toMatchObject({ code: "VM_MISMATCH", status: 4 });
    await vms.noQemus();
    expect(await vms.images()).toEqual(["web.mfd"]);
    await vms.start("web"); // as before: what failed was not recorded
    await vms.oneLife("web");
  });

  test("that may have run are not run again, nor saved over, until somebody decides", async () => {
    await vms.saved("web");
    await copyFile(await vms.stateFile("web.mfd"), await vms.stateFile("web.mfd.resuming"));
    const start = await vms.run(["start", "web"]).failure();
    expect(start).toMatchObject({ code: "MANAGED_STATE", message: expect.stringMatching(/--discard/) });
    const save = await vms.run(["managed-save", "web", "--qmp", "/nowhere"]).failure();
    expect(save).toMatchObject({
      code: "MANAGED_STATE",
      message: expect.stringMatching(/managed-remove web/),
    });
    expect((await vms.answer("managed-list")).value).toMatchObject({ images: [{ state: "resuming" }] });

    expect((await vms.answer("managed-remove", "web")).status).toBe(0);
    expect(await vms.images()).toEqual([]);
  });

  test("are started by one at a time", async () => {
    await vms.saved("web");
    const first = vms.run(["start", "web", "--detach", "--rate", "1M"]);
    await first.waitEvent("vm", ({ state }) => state === "migrating");
    // The first one must not be through before the last of them is refused.
    first.signal("SIGSTOP");
    const others = [
      ["start", "web"],
      ["managed-save", "web"],
      ["managed-remove", "web", "--json"],
    ].map((args) => vms.run(args));
    for (const other of others) {
      expect(await other.failure()).toMatchObject({ code: "TARGET_BUSY", status: 5 });
    }
    first.signal("SIGCONT");
    await first.waitEvent("started");
    expect(await first.exit()).toBe(0);
  });

  test("in the foreground get the signals, and pass on how they end", async () => {
    await vms.saved("web");
    const start = vms.run(["start", "web", "--paused"]);
    await start.waitEvent("started");
    expect(start.events).toContainEqual(expect.objectContaining({ event: "vm", state: "paused" }));
    expect(await vms.images()).toEqual([]);
    start.signal("SIGTERM");
    expect(await start.exit()).toBe(0); // QEMU takes SIGTERM for quit
    await vms.noQemus();
  });

  test("that others have started are saved by their monitor", async () => {
    const vm = await operators.start({ binary: ten, ramBytes: 2 ** 24, start: "paused" });
    const unknown = await vms.run(["managed-save", "web"]).failure();
    expect(unknown).toMatchObject({ code: "USAGE", message: expect.stringMatching(/--qmp PATH/) });
    await vms.run(["managed-save", "web", "--qmp", vm.monitorPath]).success();
    await vm.exited;
    expect(await vms.run(["start", "web"]).failure()).toMatchObject({ code: "USAGE" });
    expect(await vms.images()).toEqual(["web.mfd"]);
  });
});
