import { lstatSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import type { DiskOverlay } from "../../control/events.ts";
import { MultifdError } from "../../errors.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import { type Disk, findDisks, localPath } from "../disks/block-info.ts";

/** An overlay that a disk of the VM is to get. */
export interface PlannedOverlay extends DiskOverlay {
  /** The node that the guest writes to now. */
  readonly node: string;
  /** What the overlay's node is called, and the job that takes it away again. */
  readonly overlayNode: string;
}

/** The VM's disks that a guest can write to. */
export async function writableDisks(monitor: Monitor): Promise<Disk[]> {
  return (await findDisks(monitor)).filter(({ medium }) => !medium.ro);
}

/**
 * Where the overlays of these disks go: beside their files.
 * @param pid QEMU's process, if it is known
 * @throws MultifdError VM_STATE: there is a disk that cannot get one
 */
export function planOverlays(disks: readonly Disk[], name: string, pid: number | null): PlannedOverlay[] {
  const unique = Date.now().toString(36);
  return disks.map((disk, number) => {
    const base = fileOf(disk, pid);
    const overlay = join(dirname(base), overlayName(basename(base), name));
    if (lstatSync(overlay, { throwIfNoEntry: false }) !== undefined) {
      throw refusal(
        disk,
        `${overlay} exists already: choose another --name, or remove it if nothing uses it`,
      );
    }
    const node = disk.medium["node-name"] ?? "";
    return { device: disk.device, base, overlay, node, overlayNode: `snap-${unique}-${number}` };
  });
}

/** The next snapshot's overlay is named after the disk again, not after the overlay below it. */
function overlayName(file: string, name: string): string {
  return `${file.replace(/\.snap-[\w-]+\.qcow2$/, "")}.snap-${name}.qcow2`;
}

/** QEMU writes into an overlay what its base is called, as it knows it itself. */
function fileOf(disk: Disk, pid: number | null): string {
  const { filename } = disk.medium.image;
  const path = localPath(filename, pid);
  const kind = path === null ? undefined : statSync(path, { throwIfNoEntry: false });
  if (path === null || kind === undefined) throw refusal(disk, `${filename} is no file of this host`);
  if (!kind.isFile()) throw refusal(disk, `${path} is no regular file: there is no place beside it`);
  if (!filename.startsWith("/") && filename.includes("/") && !filename.includes(":")) {
    throw refusal(disk, `QEMU knows it as ${filename}: start QEMU with the whole path`);
  }
  return path;
}

function refusal({ device }: Disk, why: string): MultifdError {
  const text = `the disk ${device} cannot get an overlay: ${why}`;
  return new MultifdError("VM_STATE", text, { device });
}
