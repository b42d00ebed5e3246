import { resolve } from "node:path";
import { MultifdError } from "../errors.ts";
import { connectQmp } from "../qmp/client.ts";
import type { Monitor } from "../qmp/monitor.ts";

/** Which VM is meant: by the socket of its QMP monitor. */
export interface VmTarget {
  /** Path of a unix socket that QEMU listens on for QMP (-qmp unix:PATH,server=on,wait=off). */
  readonly qmp: string;
}

const CONNECT_MS = 5000;

/**
 * Connects to the VM's monitor.
 * @throws MultifdError USAGE, MONITOR_UNREACHABLE
 */
export async function openMonitor(target: VmTarget, timeoutMs: number = CONNECT_MS): Promise<Monitor> {
  return await connectQmp(socketPath(target.qmp), { timeoutMs });
}

/** The same VM gives the same text, from wherever it is called. */
export function targetName(target: VmTarget): string {
  return resolve(socketPath(target.qmp));
}

/** The same VM, named so that a process with another working directory finds it. */
export function absolute(target: VmTarget): VmTarget {
  return { qmp: targetName(target) };
}

/** Paths may be written as QEMU writes them: unix:PATH. */
function socketPath(qmp: string): string {
  const path = qmp.replace(/^unix:/, "");
  if (path === "") throw new MultifdError("USAGE", "the path of the QMP socket is missing");
  return path;
}
