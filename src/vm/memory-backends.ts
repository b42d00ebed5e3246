import type { Monitor } from "../qmp/monitor.ts";

/** A memory-backend object of a VM; -m and -mem-path make one, too. */
export interface MemoryBackend {
  readonly id: string;
  /** QOM type: memory-backend-ram, -file, -memfd, -shm, -epc. */
  readonly type: string;
  /** memory-backend-file's path, as QEMU was given it; a directory means a new file in it that has no name. */
  readonly path: string | null;
  readonly share: boolean;
  readonly prealloc: boolean;
}

/** What RAM is made of. Properties as in qapi/qom.json, QEMU 7.2 to 10. */
export async function memoryBackends(monitor: Monitor): Promise<MemoryBackend[]> {
  const objects = (await monitor.execute("qom-list", { path: "/objects" })) as readonly {
    name: string;
    type: string;
  }[];
  const found: MemoryBackend[] = [];
  for (const { name: id, type: childType } of objects) {
    const [, type] = /^child<(memory-backend-.*)>$/.exec(childType) ?? [];
    if (type === undefined) continue;
    const get = (property: string): Promise<unknown> =>
      monitor.execute("qom-get", { path: `/objects/${id}`, property });
    found.push({
      ...{ id, type },
      path: type === "memory-backend-file" ? String(await get("mem-path")) : null,
      share: (await get("share")) === true,
      prealloc: (await get("prealloc")) === true,
    });
  }
  return found;
}
