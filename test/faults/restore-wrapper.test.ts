import { chmod, readFile, writeFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { isAlive } from "../../src/vm/guard/stale-journal.ts";
import { useHelpers } from "../support/helper-process.ts";
import { operatorArgs, useOperatorVms } from "../support/operator-vm.ts";
import { describeEachQemu } from "../support/qemus.ts";

describeEachQemu("a restore into a QEMU that a script starts", (binary) => {
  const vms = useOperatorVms();
  const start = useHelpers();

  test("that is refused leaves neither script nor QEMU", async () => {
    const guest = { binary, ramBytes: 64 * 2 ** 20 };
    const [image, script, pidFile] = [vms.file("vm.mfd"), vms.file("qemu.sh"), vms.file("qemu.pid")];
    const vm = await vms.start(guest);
    await start(["save", image, "--json", "--qmp", vm.monitorPath]).success();
    await writeFile(script, `#!/bin/sh\n'${binary.path}' "$@"\nexit $?\n`);
    await chmod(script, 0o755);
    const args = [...operatorArgs({ ...guest, ramBytes: 2 ** 27 }), "-pidfile", pidFile];
    const failure = await start(["restore", image, "--json", "--", script, ...args]).failure();
    expect(failure).toMatchObject({ code: "VM_MISMATCH" });
    const qemu = Number(await readFile(pidFile, "utf8"));
    await expect.poll(() => isAlive(qemu)).toBe(false);
  });
});
