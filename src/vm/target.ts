import { resolve } from "node:path";
import { MultifdError } from "../errors.ts";
import { connectQmp } from "../qmp/client.ts";
import type { Monitor } from "../qmp/monitor.ts";
import { connectVirsh } from "../qmp/virsh.ts";

/** Which VM is meant: by the socket of its QMP monitor, or as a domain of libvirt. */
export type VmTarget = QmpTarget | VirshTarget;

interface QmpTarget {
  /** Path of a unix socket that QEMU listens on for QMP (-qmp unix:PATH,server=on,wait=off). */
  readonly qmp: string;
}

interface VirshTarget {
  /** Name, UUID or id of a domain that runs. */
  readonly virsh: string;
  /** libvirt's connection URI; virsh's own default when left out. */
  readonly uri?: string | undefined;
}

const CONNECT_MS = 5000;

/**
 * Connects to the VM's monitor.
 * @throws MultifdError USAGE, MONITOR_UNREACHABLE
 */
export async function openMonitor(target: VmTarget, timeoutMs: number = CONNECT_MS): Promise<Monitor> {
  if ("virsh" in target) return await connectVirsh(target.virsh, { uri: target.uri, timeoutMs });
  return await connectQmp(socketPath(target.qmp), { timeoutMs });
}

/** The same VM gives the same text, from wherever it is called. */
export function targetName(target: VmTarget): string {
  if ("qmp" in target) return resolve(socketPath(target.qmp));
  return target.uri === undefined ? `domain ${target.virsh}` : `domain ${target.virsh} at ${target.uri}`;
}

/** The option that names it on a command line. */
export function targetOption(target: VmTarget): string {
  if ("qmp" in target) return `--qmp ${targetName(target)}`;
  return `--virsh ${target.virsh}${target.uri === undefined ? "" : ` --connect-uri ${target.uri}`}`;
}

/** The same VM, named so that a process with another working directory finds it. */
export function absolute(target: VmTarget): VmTarget {
  return "qmp" in target ? { qmp: targetName(target) } : target;
}

/** Paths may be written as QEMU writes them: unix:PATH. */
function socketPath(qmp: string): string {
  const path = qmp.replace(/^unix:/, "");
  if (path === "") throw new MultifdError("USAGE", "the path of the QMP socket is missing");
  return path;
}
