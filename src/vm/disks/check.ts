import { MultifdError } from "../../errors.ts";
import type { DiskRecord } from "../../formats/image/model.ts";
import { holdsNothing } from "./qcow2.ts";
import type { DiskLayers } from "./record.ts";

/**
 * Compares the destination's disks with those at the save: memory that restores over a disk that went on is how
 * file systems are destroyed. A disk of the save fits as it was, and below overlays that hold nothing yet. Disks that
 * were read-only are not looked at.
 * @throws MultifdError DISK_CHANGED
 */
export async function checkDisks(
  saved: readonly DiskRecord[],
  found: readonly DiskLayers[],
  image: string,
): Promise<void> {
  const written = saved.filter(({ readOnly }) => !readOnly);
  const judged = await Promise.all(
    written.map((disk) => {
      const layers = found.find(([top]) => top.device === disk.device);
      return layers === undefined
        ? `${disk.device} (${disk.file ?? disk.device}) is missing`
        : judge(disk, layers);
    }),
  );
  const differences = judged.filter((text) => text !== null);
  if (differences.length === 0) return;
  throw new MultifdError(
    "DISK_CHANGED",
    `the disks are not as they were when ${image} was saved: ${differences.join("; ")}; give the VM the disks of that moment, or use --force if you know that they agree with its memory`,
    { differences: differences.join("; ") },
  );
}

async function judge(saved: DiskRecord, layers: DiskLayers): Promise<string | null> {
  const place = saved.file === null ? -1 : layers.findIndex(({ file }) => file === saved.file);
  for (const overlay of layers.slice(0, Math.max(place, 0))) {
    if (!(await holdsNothing(overlay)))
      return `${overlay.file ?? overlay.device}, which lies over ${saved.file}, was written`;
  }
  return difference(saved, layers[place] ?? layers[0]);
}

/** How a disk differs from the one that the image was saved with; null: not, as far as can be seen. */
function difference(saved: DiskRecord, found: DiskRecord): string | null {
  const name = saved.file ?? saved.device;
  if (found.format !== saved.format) return `${name} was ${saved.format} and is ${found.format}`;
  if (saved.fileBytes !== null && found.fileBytes !== saved.fileBytes) {
    return `${found.file ?? name} had ${saved.fileBytes} bytes and has ${found.fileBytes ?? "unknown"}`;
  }
  // A copy has a time of its own.
  if (found.file !== saved.file) return null;
  if (found.snapshotId !== saved.snapshotId) return `${name} got or lost an internal snapshot`;
  if (saved.modifiedNs !== null && found.modifiedNs !== saved.modifiedNs) return `${name} was written since`;
  return null;
}
