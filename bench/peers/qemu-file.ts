import type { RestorePeer, SavePeer } from "./peer.ts";
import { qemuAlone } from "./qemu-alone.ts";

/** One stream that QEMU (8.2 or later) writes itself, through the page cache. */
export const qemuFile: SavePeer & RestorePeer = qemuAlone(
  "QEMU file:",
  { capabilities: {}, parameters: {} },
  (file) => `file:${file}`,
);
