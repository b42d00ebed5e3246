import { once } from "node:events";
import net from "node:net";

const CONNECT_MS = 10_000;

/**
 * Begins to connect to a helper, as QEMU does.
 * @param address as in the event `listening`: unix:PATH or tcp:HOST:PORT
 */
export function dial(address: string): net.Socket {
  return net.connect({ ...endpointOf(address), allowHalfOpen: true });
}

/** Waits until the connection is there. */
export async function connected(socket: net.Socket): Promise<net.Socket> {
  await once(socket, "connect", { signal: AbortSignal.timeout(CONNECT_MS) });
  return socket;
}

function endpointOf(address: string): { path: string } | { host: string; port: number } {
  const [, path] = /^unix:(.*)$/s.exec(address) ?? [];
  if (path !== undefined) return { path };
  const [, host = "", port] = /^tcp:\[?(.*?)\]?:(\d+)$/.exec(address) ?? [];
  return { host, port: Number(port) };
}
