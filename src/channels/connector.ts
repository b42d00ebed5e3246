import net from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { MultifdError } from "../errors.ts";
import { hasCode } from "../io/file-io.ts";
import { type Address, formatAddress } from "./address.ts";
import { Connection, RAISE_LIMIT } from "./handover.ts";

/** The backlog of the destination is full: it accepts one connection per turn of its main loop. */
const FULL = ["EAGAIN"];
/** Nobody listens there yet. */
const EARLY = ["ENOENT", "ECONNREFUSED"];
const RETRY_MS = 5;

/**
 * Connects to a destination QEMU and writes a channel's first bytes at once: QEMU's main loop stands still
 * from accepting a connection until these have come (QEMU 7.2 and 10.0, migration/channel.c, multifd.c).
 * @param signal ends the attempt, with CONNECT_FAILED or whatever MultifdError is its reason
 * @param early the destination may begin to listen later
 */
export async function connectChannel(
  address: Address,
  firstBytes: Uint8Array,
  signal: AbortSignal,
  early: boolean = false,
): Promise<Connection> {
  const socket = await connect(address, signal, early ? [...FULL, ...EARLY] : FULL);
  let abort = (): void => undefined;
  try {
    await new Promise<void>((resolve, reject) => {
      abort = () => reject(signal.reason);
      socket.once("error", reject);
      socket.once("close", () => reject(new Error("the destination closed the connection")));
      signal.addEventListener("abort", abort, { once: true });
      // A copy: the caller's buffer may live in memory that moves on before the kernel took it.
      socket.write(Buffer.from(firstBytes), (error) => (error ? reject(error) : resolve()));
    });
    socket.removeAllListeners("close");
  } catch (error) {
    socket.destroy();
    throw signal.aborted ? connectError(address, error) : closedAtOnce(address, error);
  } finally {
    signal.removeEventListener("abort", abort);
  }
  try {
    return Connection.detach(socket);
  } catch (error) {
    throw connectError(address, error);
  }
}

async function connect(
  address: Address,
  signal: AbortSignal,
  passing: readonly string[],
): Promise<net.Socket> {
  for (;;) {
    if (signal.aborted) throw connectError(address, signal.reason);
    try {
      return await connectOnce(address, signal);
    } catch (error) {
      if (!hasCode(error, ...passing)) throw connectError(address, error);
      await sleep(RETRY_MS);
    }
  }
}

function connectOnce(address: Address, signal: AbortSignal): Promise<net.Socket> {
  if (address.kind === "fd") {
    throw new MultifdError(
      "USAGE",
      "restore connects to unix:PATH or tcp:HOST:PORT; fd:N is for listening only",
    );
  }
  return new Promise((resolve, reject) => {
    const target =
      address.kind === "unix" ? { path: address.path } : { host: address.host, port: address.port };
    const socket = net.connect({ ...target, allowHalfOpen: true });
    const abort = (): void => {
      socket.destroy();
      reject(signal.reason);
    };
    signal.addEventListener("abort", abort, { once: true });
    socket.once("error", (error) => {
      signal.removeEventListener("abort", abort);
      reject(error);
    });
    socket.once("connect", () => {
      signal.removeEventListener("abort", abort);
      resolve(socket);
    });
  });
}

/** It listened, and then would not have this channel. */
function closedAtOnce(address: Address, error: unknown): MultifdError {
  const text = error instanceof Error ? error.message : String(error);
  return new MultifdError(
    "DESTINATION_CLOSED",
    `the destination at ${formatAddress(address)} closed a connection as it was made (${text}): its multifd channels, UUID or compression may not be the image's (see inspect), and its own messages tell more`,
    { address: formatAddress(address) },
    error,
  );
}

function connectError(address: Address, error: unknown): MultifdError {
  if (error instanceof MultifdError) return error;
  const text = error instanceof Error ? error.message : String(error);
  const advice = hasCode(error, "EMFILE")
    ? RAISE_LIMIT
    : "is QEMU waiting there (-incoming, or migrate-incoming)?";
  return new MultifdError(
    "CONNECT_FAILED",
    `cannot connect to ${formatAddress(address)}: ${text}; ${advice}`,
    { address: formatAddress(address) },
    error,
  );
}
