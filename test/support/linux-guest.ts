import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import type { QemuBinary } from "../../src/vm/find-qemu.ts";
import { initramfs } from "./initramfs.ts";
import type { OperatorVm, OperatorVmOptions, OperatorVms } from "./operator-vm.ts";
import { describeBothQemus, unavailable } from "./qemus.ts";

/** What .ci/setup --tests unpacks of the distribution's packages. */
const folder = join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "multifd-helper", "linux-guest");
const KERNEL = join(folder, "vmlinuz");
const BUSYBOX = join(folder, "busybox");

const MIB = 2 ** 20;

/**
 * It counts ten times a second, and with every tenth count makes a file of 1 MiB of random bytes in memory, up to 32 of
 * them, and checks all of them. So after a restore it finds memory that it filled before the save.
 */
const INIT = `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
mount -t tmpfs memory /memory
cd /memory
exec </dev/null >/dev/ttyS0 2>&1
echo "guest up"
count=0 files=0
while :; do
  count=$((count + 1))
  read up idle </proc/uptime
  echo "count $count at $up"
  if [ $((count % 10)) = 0 ]; then
    if [ $files -lt 32 ]; then
      files=$((files + 1))
      head -c ${MIB} /dev/urandom >$files
      sha256sum $files >>sums
    fi
    if sha256sum -c -s sums; then echo "memory ok, $files files"; else echo "MEMORY DAMAGED"; fi
  fi
  sleep 0.1
done
`;

export type LinuxOptions = Omit<OperatorVmOptions, "disks" | "ramBytes"> & { readonly ramBytes?: number };

/**
 * A VM of 256 MiB with a real Linux, which says on its serial port:
 * `guest up`; then again and again `count N at SECONDS`, N from 1, SECONDS since it was booted; and after
 * every tenth of these `memory ok, N files` or `MEMORY DAMAGED`.
 * With start "incoming" it is the VM that such a guest can be restored into.
 */
export async function bootLinux(vms: OperatorVms, options: LinuxOptions): Promise<OperatorVm> {
  const initrd = vms.file("initramfs");
  if (!existsSync(initrd)) await writeFile(initrd, await tinyInitramfs());
  const append = "console=ttyS0 quiet panic=-1 mitigations=off";
  const kernel = ["-kernel", KERNEL, "-initrd", initrd, "-append", append];
  return await vms.start({
    ramBytes: 256 * MIB,
    ...options,
    extraArgs: [...kernel, ...(options.extraArgs ?? [])],
  });
}

/** A suite that needs a Linux to boot; on the newer QEMU, which boots it faster. */
export function describeLinuxGuest(title: string, body: (binary: QemuBinary) => void): void {
  if (!existsSync(KERNEL) || !existsSync(BUSYBOX))
    unavailable(title, "a Linux kernel and busybox for guests");
  else describeBothQemus(title, ({ ten }) => body(ten));
}

async function tinyInitramfs(): Promise<Buffer> {
  return initramfs([
    ...["bin", "dev", "proc", "memory"].map((name) => ({ name })),
    { name: "bin/busybox", content: await readFile(BUSYBOX) },
    { name: "init", content: Buffer.from(INIT) },
  ]);
}
