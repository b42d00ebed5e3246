import type { SaveOptions } from "../../control/options.ts";
import type { Then } from "../guard/journal.ts";
import type { VmTarget } from "../target.ts";
import type { LiveLimits } from "./live-policy.ts";

type DataPathOptions = Omit<
  SaveOptions,
  "listen" | "allowRemote" | "allowUids" | "discardBacklog" | "confirm" | "describeVm"
>;

export interface SaveVmOptions extends DataPathOptions {
  readonly vm: VmTarget;
  /** multifd channels, 0..255 (0: one stream); 4 when left out. */
  readonly channels?: number | undefined;
  /** helper (default): our own data path. file: QEMU writes a mapped-ram image itself (9.0 and later). */
  readonly engine?: "helper" | "file" | undefined;
  /** Default none. */
  readonly compression?: "none" | "zlib" | "zstd" | undefined;
  /** zlib 0..9, zstd 0..20; QEMU's own default when left out. */
  readonly compressionLevel?: number | undefined;
  /** The VM runs while it is saved, and stops for the last of it only. */
  readonly live?: LiveLimits | undefined;
  /** What becomes of the VM once its image is safe. Default quit. */
  readonly afterwards?: Then | undefined;
}
