import type net from "node:net";

/** The number of a socket or server that the event loop owns; null where it has none (not connected yet, or closed). */
export function socketDescriptor(socket: net.Socket | net.Server): number | null {
  // Node documents no other way to the number; `_handle.fd` has been stable since Node 0.x.
  const fd = (socket as unknown as { _handle?: { fd?: number } | null })._handle?.fd;
  return fd !== undefined && fd >= 0 ? fd : null;
}
