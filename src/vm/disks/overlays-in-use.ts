import type { Monitor } from "../../qmp/monitor.ts";
import { findDisks, layersOf, localPath } from "./block-info.ts";

/** Those of some overlays that a disk of the VM consists of. */
export async function overlaysInUse<T extends { readonly overlay: string }>(
  monitor: Monitor,
  overlays: readonly T[],
): Promise<T[]> {
  if (overlays.length === 0) return [];
  const disks = await findDisks(monitor);
  const files = disks.flatMap(({ medium }) =>
    layersOf(medium).map(({ filename }) => localPath(filename, monitor.pid)),
  );
  return overlays.filter(({ overlay }) => files.includes(overlay));
}
