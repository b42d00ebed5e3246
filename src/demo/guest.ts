import type { Accelerator } from "./accelerator.ts";

/** What guest RAM is made of; it decides how QEMU may migrate it. Bytes are the same for all. */
export type GuestMemory =
  | { readonly kind: "file"; readonly path: string }
  | { readonly kind: "anonymous" }
  | { readonly kind: "memfd"; readonly hugetlb: boolean };

export interface GuestOptions {
  readonly ramBytes: number;
  readonly memory: GuestMemory;
  readonly accelerator: Accelerator;
  /** QEMU's -machine type; "q35" if absent. Source and destination need the same one, e.g. "pc-q35-7.2". */
  readonly machine?: string;
  /** Wait for an incoming migration, to be started with migrate-incoming. */
  readonly incoming?: boolean;
  /** A raw disk image to boot from, on the machine's AHCI controller. */
  readonly bootDisk?: string;
  readonly extraArgs?: readonly string[];
}

/** QEMU's arguments for such a guest: nothing but the machine, its RAM and, if asked for, a boot disk. It starts paused. */
export function guestArgs(options: GuestOptions): string[] {
  const { ramBytes, memory, accelerator, machine = "q35" } = options;
  return [
    ...["-machine", `${machine},memory-backend=ram`, "-accel", accelerator],
    ...["-m", `${ramBytes}B`],
    ...["-object", JSON.stringify({ id: "ram", size: ramBytes, ...backend(memory) })],
    ...["-nodefaults", "-display", "none", "-S"],
    ...(options.bootDisk === undefined ? [] : diskArgs(options.bootDisk)),
    ...(options.incoming ? ["-incoming", "defer"] : []),
    ...(options.extraArgs ?? []),
  ];
}

function backend(memory: GuestMemory): object {
  switch (memory.kind) {
    case "file":
      return { "qom-type": "memory-backend-file", "mem-path": memory.path, share: true };
    case "anonymous":
      return { "qom-type": "memory-backend-ram" };
    case "memfd":
      return { "qom-type": "memory-backend-memfd", share: true, hugetlb: memory.hugetlb };
  }
}

/** Locking is off because the source and the destination of a migration open the same disk. */
function diskArgs(path: string): string[] {
  const file = { driver: "file", filename: path, locking: "off" };
  const disk = { driver: "raw", "node-name": "boot-disk", file };
  return ["-blockdev", JSON.stringify(disk), "-device", "ide-hd,bus=ide.0,drive=boot-disk"];
}
