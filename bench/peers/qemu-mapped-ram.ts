import type { RestorePeer, SavePeer } from "./peer.ts";
import { qemuAlone } from "./qemu-alone.ts";

/** QEMU's own parallel save: mapped-ram with multifd (9.0 or later), with direct-io (9.1 or later) or through the page cache. */
export function qemuMappedRam(channels: number, directIo: boolean): SavePeer & RestorePeer {
  return qemuAlone(
    `QEMU mapped-ram, ${directIo ? "direct-io" : "buffered"}`,
    {
      capabilities: { "mapped-ram": true, multifd: true },
      parameters: { "multifd-channels": channels, "direct-io": directIo },
    },
    (file) => `file:${file}`,
  );
}
