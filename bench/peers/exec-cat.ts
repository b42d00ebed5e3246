import type { RestorePeer, SavePeer } from "./peer.ts";
import { qemuAlone } from "./qemu-alone.ts";

/** What people have always done: one stream through a shell's pipe, into the page cache. */
export const execCat: SavePeer & RestorePeer = qemuAlone(
  "exec:cat",
  { capabilities: {}, parameters: {} },
  (file) => `exec:cat > '${file}'`,
  (file) => `exec:cat '${file}'`,
);
