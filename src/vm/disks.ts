import { stat } from "node:fs/promises";
import { MultifdError } from "../errors.ts";
import type { DiskRecord } from "../formats/image/model.ts";
import { deviceBytes } from "../io/image-target/file-kind.ts";
import type { Monitor } from "../qmp/monitor.ts";

/** The part of query-block's answer that is used here (qapi/block-core.json, QEMU 7.2 to 10). */
export interface BlockInfo {
  readonly device: string;
  readonly qdev?: string;
  readonly inserted?: {
    readonly "node-name"?: string;
    readonly drv: string;
    readonly ro: boolean;
    readonly image: { readonly filename: string; readonly snapshots?: readonly { readonly id: string }[] };
  };
}

/** The VM's block devices that have a medium, as QEMU and their files are now. */
export async function recordDisks(monitor: Monitor): Promise<DiskRecord[]> {
  const blocks = (await monitor.execute("query-block")) as readonly BlockInfo[];
  return await Promise.all(blocks.filter(({ inserted }) => inserted !== undefined).map(describeDisk));
}

async function describeDisk({ device, qdev, inserted }: BlockInfo): Promise<DiskRecord> {
  const { drv, ro, image, "node-name": node = "" } = inserted as NonNullable<BlockInfo["inserted"]>;
  const file = localPath(image.filename);
  return {
    device: qdev === undefined || qdev === "" ? device : qdev,
    node,
    file,
    format: drv,
    readOnly: ro,
    ...(await lookAt(file)),
    snapshotId: image.snapshots?.at(-1)?.id ?? null,
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

/** QEMU's filename where it is a path of this host: "/a/b", "file:/a/b", or JSON around a file. */
function localPath(filename: string): string | null {
  if (filename.startsWith("json:")) return pathInJson(filename.slice("json:".length));
  const path = filename.replace(/^file:/, "");
  return path.startsWith("/") ? path : null;
}

function pathInJson(text: string): string | null {
  try {
    const found = /"filename": ?("(?:[^"\\]|\\.)*")/.exec(text)?.[1];
    return found === undefined ? null : localPath(JSON.parse(found) as string);
  } catch {
    return null;
  }
}

/** How a disk differs from the one that the image was saved with; null: not, as far as can be seen. */
function difference(saved: DiskRecord, found: DiskRecord | undefined): string | null {
  const name = saved.file ?? saved.device;
  if (found === undefined) return `${saved.device} (${name}) is missing`;
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

/**
 * Compares the destination's disks with those at the save: memory that restores over a disk that went on is how
 * file systems are destroyed. Disks that were read-only are not looked at.
 * @throws MultifdError DISK_CHANGED
 */
export function checkDisks(saved: readonly DiskRecord[], found: readonly DiskRecord[], image: string): void {
  const differences = saved
    .filter(({ readOnly }) => !readOnly)
    .map((disk) =>
      difference(
        disk,
        found.find(({ device }) => device === disk.device),
      ),
    )
    .filter((text) => text !== null);
  if (differences.length === 0) return;
  throw new MultifdError(
    "DISK_CHANGED",
    `the disks are not as they were when ${image} was saved: ${differences.join("; ")}; give the VM the disks of that moment, or use --force if you know that they agree with its memory`,
    { differences: differences.join("; ") },
  );
}
