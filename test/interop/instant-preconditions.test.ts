import { readFile, statfs, writeFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { useInstantVms } from "../support/instant-vms.ts";
import { describeAsRoot, NOBODY } from "../support/other-user.ts";
import { describeEachQemu } from "../support/qemus.ts";

const TMPFS = 0x0102_1994;

describeEachQemu("before an instant restore changes anything", (binary) => {
  const vms = useInstantVms(binary, "paused");

  test.each(["on", "off"])(
    "RAM in a file on a disk is refused (share=%s), and the file is untouched",
    async (share) => {
      const path = vms.file("ram.img");
      await writeFile(path, Buffer.alloc(64 * 2 ** 20, 0xaa));
      if ((await statfs(path)).type === TMPFS) return; // what is to be refused cannot be made here
      const object = `memory-backend-file,id=ram,size=64M,share=${share},mem-path=${path}`;
      const vm = await vms.waiting(
        { machine: "q35,memory-backend=ram", extraArgs: ["-object", object] },
        null,
      );
      const helper = vms.restore(["--instant", "--json", "--qmp", vm.monitorPath]);
      expect(await helper.failure()).toMatchObject({
        ...{ code: "QEMU_UNSUPPORTED", status: 7 },
        message: expect.stringMatching(
          /RAM ram lies in .*ram\.img, .*another file system.*tmpfs or hugetlbfs/,
        ),
      });
      expect((await readFile(path)).equals(Buffer.alloc(64 * 2 ** 20, 0xaa))).toBe(true);
      expect(await vm.qmp.execute("query-status")).toMatchObject({ status: "inmigrate" });
      expect(await vm.qmp.execute("query-migrate")).toEqual({});
    },
  );

  test("a QEMU that is another machine", async () => {
    const vm = await vms.waiting({ machine: "pc" });
    const helper = vms.restore(["--instant", "--json", "--qmp", vm.monitorPath]);
    expect(await helper.failure()).toMatchObject({ code: "VM_MISMATCH", status: 4 });
  });

  test("there is nothing to resume", async () => {
    const vm = await vms.waiting();
    const helper = vms.restore(["--resume", "--json", "--qmp", vm.monitorPath]);
    expect(await helper.failure()).toMatchObject({
      code: "VM_STATE",
      message: expect.stringContaining("no instant restore into it has begun"),
    });
  });
});

describeAsRoot("a QEMU without a right to userfaultfd", () => {
  describeEachQemu("is told how to get one", (binary) => {
    const vms = useInstantVms(binary, "paused");

    test("and is as it was", async () => {
      const user = `${NOBODY}:${NOBODY}`;
      const extraArgs = binary.major < 10 ? ["-runas", user] : ["-run-with", `user=${user}`];
      const vm = await vms.waiting({ extraArgs });
      const helper = vms.restore(["--instant", "--json", "--qmp", vm.monitorPath]);
      const failure = await helper.failure();
      expect(failure).toMatchObject({ code: "QEMU_UNSUPPORTED", status: 7 });
      expect(failure.message).toContain("CAP_SYS_PTRACE");
      expect(failure.message.includes("/dev/userfaultfd")).toBe(binary.major >= 8);
      expect(await vm.status()).toBe("inmigrate");
      expect(await vm.qmp.execute("query-migrate")).toEqual({});
    });
  });
});

describeEachQemu("a disk that another process uses", (binary) => {
  const vms = useInstantVms(binary, "dirtier");

  test("keeps the VM from running, and its image can be restored again", async () => {
    const other = await vms.waiting({ start: "running" });
    const { helper } = vms.launch([]);
    expect(await helper.failure()).toMatchObject({
      ...{ code: "QEMU_FAILED", status: 7, details: { ran: false } },
      message: expect.stringMatching(/another process uses a disk.*the VM has not run/),
    });
    await other.process.kill();
    const again = vms.launch(["--force"]);
    await again.helper.waitEvent("completed");
    await vms.expectAlive();
    await (await again.monitor()).execute("quit");
    expect(await again.helper.exit()).toBe(0);
  });
});
