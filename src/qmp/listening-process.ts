import { readFileSync, readlinkSync } from "node:fs";
import path from "node:path";
import { peerCredentials } from "../io/libc.ts";

/** qemu-system-x86_64, RHEL's qemu-kvm, Debian's kvm, the wrapped ones of NixOS; but not libvirt's virtqemud. */
const QEMU_NAME = /^\.?(qemu-(system|kvm)|kvm$)/;

/**
 * The process at the other end of a connected unix socket, if it is a QEMU. The kernel remembers who called listen():
 * QEMU itself, or whoever gave it the listening socket (`-chardev socket,fd=`, as libvirt does), and that is no QEMU.
 * null then, and where the process has ended or is not seen from here.
 */
export function listeningQemu(socketFd: number): number | null {
  const pid = peerCredentials(socketFd)?.pid ?? 0; // 0 too: a process of another pid namespace
  return pid > 0 && isQemu(pid) ? pid : null;
}

/** Whether a process is a QEMU, by its program's name. false as well where there is no such process. */
export function isQemu(pid: number): boolean {
  return QEMU_NAME.test(nameOf(pid) ?? "");
}

/** The name of its program; of another user's process it is the one that the process gave itself. */
function nameOf(pid: number): string | undefined {
  for (const read of [
    () => path.basename(readlinkSync(`/proc/${pid}/exe`)),
    () => readFileSync(`/proc/${pid}/comm`, "utf8").trim(),
  ]) {
    try {
      return read();
    } catch {
      // ended, or not ours to look at
    }
  }
  return undefined;
}
