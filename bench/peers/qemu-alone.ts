import type { Settings } from "../../src/vm/settings.ts";
import type { RestorePeer, SavePeer } from "./peer.ts";

/** QEMU without a helper. @param outgoing,incoming its migration URI for a file */
export function qemuAlone(
  name: string,
  settings: Settings,
  outgoing: (file: string) => string,
  incoming: (file: string) => string = outgoing,
): SavePeer & RestorePeer {
  return {
    name,
    save: async (guest, file) => {
      await guest.set(settings);
      const startedAt = performance.now();
      return { ms: (await guest.migrate(outgoing(file))) - startedAt };
    },
    restore: async (guest, file) => {
      await guest.set(settings);
      const startedAt = performance.now();
      return { ms: (await (await guest.incoming(incoming(file))).completed) - startedAt };
    },
  };
}
