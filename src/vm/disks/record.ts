import { stat } from "node:fs/promises";
import type { DiskRecord } from "../../formats/image/model.ts";
import { deviceBytes } from "../../io/image-target/file-kind.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import { type Disk, findDisks, type LayerInfo, layersOf, localPath } from "./block-info.ts";

/** A disk of a VM, layer by layer from the one that is written downwards; there is at least one. */
export type DiskLayers = readonly [DiskRecord, ...DiskRecord[]];

/** The VM's block devices that have a medium, as QEMU and their files are now. */
export async function recordDisks(monitor: Monitor): Promise<DiskRecord[]> {
  return (await recordLayers(monitor)).map(([top]) => top);
}

/** The same with what lies below each of them. */
export async function recordLayers(monitor: Monitor): Promise<DiskLayers[]> {
  const disks = await findDisks(monitor);
  return await Promise.all(disks.map((disk) => describe(disk, monitor.pid)));
}

async function describe(disk: Disk, pid: number | null): Promise<DiskLayers> {
  const layers = await Promise.all(layersOf(disk.medium).map((layer) => describeLayer(disk, layer, pid)));
  return layers as [DiskRecord, ...DiskRecord[]];
}

/** What is below the top has no node name here and counts as what it is to the guest: a part of a disk that is written. */
async function describeLayer(
  { device, medium }: Disk,
  layer: LayerInfo,
  pid: number | null,
): Promise<DiskRecord> {
  const file = localPath(layer.filename, pid);
  const isTop = layer === medium.image;
  return {
    device,
    node: isTop ? (medium["node-name"] ?? "") : "",
    file,
    format: isTop ? medium.drv : layer.format,
    readOnly: medium.ro,
    ...(await lookAt(file)),
    snapshotId: layer.snapshots?.at(-1)?.id ?? null,
  };
}

/** Nanoseconds matter: a disk may be written twice in one millisecond. */
async function lookAt(file: string | null): Promise<Pick<DiskRecord, "fileBytes" | "modifiedNs">> {
  const unknown = { fileBytes: null, modifiedNs: null };
  if (file === null) return unknown;
  try {
    const { size, mtimeNs, rdev } = await stat(file, { bigint: true });
    // A block device's time tells nothing of its content.
    if (rdev !== 0n) return { fileBytes: deviceBytes(Number(rdev)), modifiedNs: null };
    return { fileBytes: Number(size), modifiedNs: String(mtimeNs) };
  } catch {
    return unknown;
  }
}
