import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { HELPER, useManagedVms } from "../support/managed-vms.ts";
import { describeEachQemu } from "../support/qemus.ts";
import { findRepoRoot } from "../support/repo.ts";
import { type Ended, run } from "../support/run.ts";

const MANAGER = join(findRepoRoot(), "docs/examples/manager.py");

function manager(...args: readonly string[]): Promise<Ended> {
  const helper = HELPER.map((word) => `'${word}'`).join(" ");
  return run("python3", [MANAGER, "--helper", helper, ...args]);
}

describeEachQemu("the manager in Python", (binary) => {
  const vms = useManagedVms();

  test.each([4, 0])("saves and restores a VM over %i channels", async (channels) => {
    const image = vms.file("vm.mfd");
    const source = await vms.source(binary);
    const saved = await manager("save", source.qmp, image, "--channels", `${channels}`);
    expect(saved).toEqual({ status: 0, stdout: expect.stringContaining(image), stderr: "" });
    expect(await vms.status(source.vm)).toBe("postmigrate");
    const destination = await vms.destination(binary);
    const restored = await manager("restore", destination.qmp, image);
    expect(restored).toEqual({ status: 0, stdout: expect.stringContaining(image), stderr: "" });
    expect(await vms.differing(source, destination)).toBe(0);
    await destination.vm.qmp.execute("cont");
    expect(await vms.status(destination.vm)).toBe("running");
  });

  test("does not call a save good that the helper refused; the VM lives on", async () => {
    const source = await vms.source(binary);
    const saved = await manager("save", source.qmp, join(vms.file("nowhere"), "vm.mfd"));
    expect(saved.status).toBe(1);
    expect(saved.stderr).toContain("TARGET_REFUSED");
    await source.vm.qmp.execute("cont");
    expect(await vms.status(source.vm)).toBe("running");
  });

  test("does not restore what is no image", async () => {
    const image = vms.file("vm.mfd");
    await writeFile(image, "no image");
    const destination = await vms.destination(binary);
    const restored = await manager("restore", destination.qmp, image);
    expect(restored.status).toBe(1);
    expect(restored.stderr).toContain("cannot be restored");
    expect(existsSync(image)).toBe(true);
  });
});
