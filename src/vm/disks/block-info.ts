import { readlinkSync } from "node:fs";
import { resolve } from "node:path";
import type { Monitor } from "../../qmp/monitor.ts";

/** The part of query-block's answer that is used here (qapi/block-core.json, QEMU 7.2 to 10). */
export interface BlockInfo {
  readonly device: string;
  readonly qdev?: string;
  readonly inserted?: BlockMedium;
}

export interface BlockMedium {
  readonly "node-name"?: string;
  readonly drv: string;
  readonly ro: boolean;
  readonly image: LayerInfo;
}

/** One file of a chain: what it does not hold is read from the one below it. */
export interface LayerInfo {
  readonly filename: string;
  readonly format: string;
  readonly snapshots?: readonly { readonly id: string }[];
  readonly "backing-image"?: LayerInfo;
}

/** A device of the VM that has a medium. */
export interface Disk {
  /** qdev id or QOM path of the device, or its old-style name. */
  readonly device: string;
  readonly medium: BlockMedium;
}

/** The VM's block devices that have a medium. */
export async function findDisks(monitor: Monitor): Promise<Disk[]> {
  const blocks = (await monitor.execute("query-block")) as readonly BlockInfo[];
  return blocks.flatMap(({ device, qdev, inserted }) =>
    inserted === undefined ? [] : [{ device: qdev || device, medium: inserted }],
  );
}

/** The files of a disk from the one that is written downwards. */
export function layersOf({ image }: BlockMedium): LayerInfo[] {
  const layers: LayerInfo[] = [];
  for (let layer: LayerInfo | undefined = image; layer !== undefined; layer = layer["backing-image"]) {
    layers.push(layer);
  }
  return layers;
}

/** QEMU's filename where it is a path of this host: "/a/b", "file:/a/b", one in JSON, or relative to where QEMU runs. */
export function localPath(filename: string, pid: number | null): string | null {
  if (filename.startsWith("json:")) return pathInJson(filename.slice("json:".length), pid);
  const path = filename.replace(/^file:/, "");
  if (path.startsWith("/")) return resolve(path);
  // nbd://host, rbd:pool/image, or nothing at all
  if (path === "" || path.includes(":")) return null;
  const directory = workingDirectory(pid);
  return directory === null ? null : resolve(directory, path);
}

function workingDirectory(pid: number | null): string | null {
  try {
    return readlinkSync(`/proc/${pid}/cwd`);
  } catch {
    return null;
  }
}

/** {"driver":"raw","file":{"driver":"file","filename":"/a"},"backing":{…}}: the file of the node itself. */
function pathInJson(text: string, pid: number | null): string | null {
  let node: JsonNode | undefined;
  try {
    node = JSON.parse(text) as JsonNode;
  } catch {
    return null;
  }
  while (node?.filename === undefined && typeof node?.file === "object") node = node.file;
  return node?.filename === undefined ? null : localPath(node.filename, pid);
}

interface JsonNode {
  readonly filename?: string;
  readonly file?: JsonNode | string;
}
