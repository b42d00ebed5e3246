import { createConnection } from "node:net";
import { hasCode } from "../../io/file-io.ts";

/** Whether a QEMU listens on this monitor, busy with another client or not: then its VM is there. */
export function isListening(qmp: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection(qmp);
    socket.on("connect", () => {
      socket.destroy();
      resolve(true);
    });
    // EAGAIN: it listens, and its backlog is full. A path that is too long cannot be bound either.
    socket.on("error", (error) => resolve(hasCode(error, "EAGAIN")));
  });
}
