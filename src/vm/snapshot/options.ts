import { MultifdError } from "../../errors.ts";
import type { LiveLimits } from "../save/live-policy.ts";
import type { SaveVmOptions } from "../save/options.ts";

export interface SnapshotVmOptions extends Omit<SaveVmOptions, "afterwards" | "engine" | "live"> {
  /**
   * The moment is the end: RAM is sent over channels while the VM runs, until QEMU stops it for the last of it. Without
   * it the moment is the start: a background snapshot.
   */
  readonly live?: LiveLimits | undefined;
  /** Takes external snapshots of all writable disks at the same moment: qcow2 overlays beside their files. */
  readonly disks?: boolean | undefined;
  /** Leaves the disks of a VM that has writable ones out; the image then says that they do not fit it. */
  readonly memoryOnly?: boolean | undefined;
  /** What the overlays are called, FILE.snap-NAME.qcow2: 1 to 64 letters, digits, - and _. Default: the time, in UTC. */
  readonly name?: string | undefined;
}

const NAME = /^[\w-]{1,64}$/;

/** @throws MultifdError USAGE */
export function checkSnapshotOptions(options: SnapshotVmOptions): void {
  const { live, disks, memoryOnly, name, channels, compression } = options;
  if (disks && memoryOnly) throw usage("disks and memory-only exclude each other");
  if (name !== undefined && !disks) throw usage("a name is that of the disks' overlays: it needs disks");
  if (name !== undefined && !NAME.test(name)) {
    throw usage(`the name ${JSON.stringify(name)} is not 1 to 64 letters, digits, - and _`);
  }
  if (live === undefined && (channels ?? compression) !== undefined) {
    throw usage("a background snapshot is one plain stream: channels and compression need live");
  }
}

function usage(text: string): MultifdError {
  return new MultifdError("USAGE", text);
}
