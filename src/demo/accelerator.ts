import { execFile } from "node:child_process";
import { access, constants } from "node:fs/promises";
import type { QemuBinary } from "../vm/find-qemu.ts";

export type Accelerator = "kvm" | "tcg";

/**
 * KVM where this user may use it with this binary, else TCG. QEMU is really asked to create an empty
 * virtual machine: a device file that opens proves little in a container or a nested guest.
 * Source and destination of a migration need the same answer: kvm's device state does not load under tcg.
 */
export async function pickAccelerator(binary: QemuBinary): Promise<Accelerator> {
  const mayOpen = await access("/dev/kvm", constants.R_OK | constants.W_OK).then(
    () => true,
    () => false,
  );
  return mayOpen && (await startsWithKvm(binary)) ? "kvm" : "tcg";
}

function startsWithKvm(binary: QemuBinary): Promise<boolean> {
  const args = ["-machine", "none,accel=kvm", "-nodefaults", "-display", "none", "-S", "-qmp", "stdio"];
  return new Promise((resolve) => {
    const qemu = execFile(binary.path, args, { timeout: 10_000 }, (error) => resolve(error === null));
    qemu.stdin?.on("error", () => {}); // it is gone already: the exit status says so
    qemu.stdin?.end('{"execute":"qmp_capabilities"}{"execute":"quit"}\n');
  });
}
