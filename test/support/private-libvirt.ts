import { mkdirSync } from "node:fs";
import { access, constants } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { describe, test } from "vitest";
import { runWell } from "./run.ts";

/** QEMU as the distribution has it: libvirt's unprivileged user must be able to run it. */
export const LIBVIRT_QEMU = "/usr/bin/qemu-system-x86_64";
/** Who QEMU runs as; Debian's number for the user libvirt-qemu. */
export const LIBVIRT_UID = 64055;

const DRIVER = fileURLToPath(new URL("./virsh-driver.js", import.meta.url));

/**
 * libvirt's daemon for one run of the driver, in a mount namespace of its own: what it writes to /etc, /run and /var goes to
 * a tmpfs and is gone with it. The machine's own libvirt, if any, is neither seen nor touched. /dev/kvm is made accessible to
 * QEMU's user, or libvirt examines QEMU anew for a minute at each start. Without control groups it makes none.
 */
const SCRIPT = `
set -e
layers="$1"; shift
mount -t tmpfs multifd-test "$layers"
for top in etc run var; do
  mkdir -p "$layers/$top/upper" "$layers/$top/work"
  mount -t overlay multifd-test -o "lowerdir=/$top,upperdir=$layers/$top/upper,workdir=$layers/$top/work" "/$top"
done
rm -rf /run/libvirt /var/lib/libvirt /var/cache/libvirt /etc/libvirt
mkdir -p /run/libvirt /etc/libvirt
grep -q ^libvirt-qemu: /etc/group || echo "libvirt-qemu:x:${LIBVIRT_UID}:" >>/etc/group
grep -q ^libvirt-qemu: /etc/passwd ||
  echo "libvirt-qemu:x:${LIBVIRT_UID}:${LIBVIRT_UID}::/var/lib/libvirt:/usr/sbin/nologin" >>/etc/passwd
printf '%s\\n' 'user = "libvirt-qemu"' 'group = "libvirt-qemu"' 'stdio_handler = "file"' >/etc/libvirt/qemu.conf
printf '%s\\n' 'unix_sock_group = "root"' 'auth_unix_rw = "none"' >/etc/libvirt/libvirtd.conf
if [ -e /dev/kvm ]; then
  cp -a /dev/kvm /run/multifd-kvm; chmod 666 /run/multifd-kvm; mount --bind /run/multifd-kvm /dev/kvm
fi
umount --recursive --lazy /sys/fs/cgroup || true
libvirtd >/run/libvirtd.log 2>&1 &
daemon=$!
stop() { kill $daemon; wait $daemon || true; }
trap stop EXIT
for turn in $(seq 300); do [ -S /run/libvirt/libvirt-sock ] && break; sleep 0.1; done
[ -S /run/libvirt/libvirt-sock ] || { cat /run/libvirtd.log >&2; exit 1; }
"$@"
`;

/** Runs the driver with a libvirt of its own and answers what it found. */
export async function underLibvirt<T>(directory: string): Promise<T> {
  const layers = path.join(directory, "layers");
  mkdirSync(layers);
  const inside = ["bash", "-c", SCRIPT, "bash", layers, process.execPath, DRIVER, directory];
  return JSON.parse(await runWell("unshare", ["--mount", "--propagation", "private", ...inside])) as T;
}

const missing = await whatIsMissing();

/** A suite that needs libvirt. CI must not stay green by testing nothing; elsewhere it says loudly that it did not run. */
export function describeWithLibvirt(title: string, body: () => void): void {
  if (missing === null) {
    describe(title, body);
    return;
  }
  const message = `${title} needs ${missing}`;
  if (process.env.CI === "true" && process.geteuid?.() === 0) throw new Error(message);
  console.warn(`\n*** NOT TESTED: ${message} ***\n`);
  describe.runIf(false)(title, () => test(`needs ${missing}`, () => {}));
}

async function whatIsMissing(): Promise<string | null> {
  if (process.geteuid?.() !== 0) return "root";
  for (const program of ["/usr/sbin/libvirtd", "/usr/bin/virsh", LIBVIRT_QEMU]) {
    const found = await access(program, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (!found) return `${program}, which this machine lacks; run .ci/setup --tests`;
  }
  const overlay =
    "mount -t tmpfs t /mnt && mkdir /mnt/u /mnt/w && mount -t overlay o -o lowerdir=/etc,upperdir=/mnt/u,workdir=/mnt/w /etc";
  const mounts = await runWell("unshare", ["--mount", "--propagation", "private", "sh", "-c", overlay]).then(
    () => true,
    () => false,
  );
  return mounts ? null : "overlay mounts";
}
