import { readFileSync } from "node:fs";
import { stat } from "node:fs/promises";
import path from "node:path";
import { MultifdError } from "../errors.ts";
import type { Monitor } from "./monitor.ts";

/** What a QEMU that libvirt confines may reach. */
export interface LibvirtHome {
  /**
   * The domain's own directory, which libvirt makes for it and removes with it: a migration socket put directly into it is
   * within reach of QEMU whatever confines it (its user; AppArmor, whose profile names this directory's files but no
   * directories below it; a mount namespace).
   */
  readonly directory: string;
  /** The user that QEMU runs as: to be allowed on that socket. */
  readonly uid: number;
}

/**
 * Asks a QEMU, by whatever monitor, whether libvirt started it, and where its directory is. null: libvirt did not, or not
 * on this host. Each QEMU of libvirt (since 1.3) has a file there with the key to its secrets (masterKey0).
 */
export async function libvirtHome(monitor: Monitor): Promise<LibvirtHome | null> {
  const file = await masterKeyFile(monitor);
  if (file === null) return null;
  const directory = path.dirname(file);
  const found = await stat(directory).catch(() => null);
  if (found === null) return null;
  return { directory, uid: (monitor.pid === null ? null : effectiveUser(monitor.pid)) ?? found.uid };
}

async function masterKeyFile(monitor: Monitor): Promise<string | null> {
  try {
    const file = await monitor.execute("qom-get", { path: "/objects/masterKey0", property: "file" });
    return typeof file === "string" && path.isAbsolute(file) ? file : null;
  } catch (error) {
    // Refused: there is no such object. Anything else is a failure.
    if (error instanceof MultifdError && error.details.class !== undefined) return null;
    throw error;
  }
}

/** Not the owner of /proc/PID: of a process that has changed its user, that is root. */
function effectiveUser(pid: number): number | null {
  try {
    const uids = /^Uid:\s+\d+\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
    return uids === null ? null : Number(uids[1]);
  } catch {
    return null;
  }
}
