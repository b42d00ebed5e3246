import { MultifdError } from "../errors.ts";

/** Where QEMU's connections come from or go to. */
export type Address =
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "fd"; readonly fd: number }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number };

/** sockaddr_un has room for 107 bytes and the final NUL. */
const UNIX_PATH_BYTES = 107;

/**
 * Reads `unix:PATH`, `fd:N` or `tcp:HOST:PORT` (HOST may be an IPv6 address in brackets).
 * Throws USAGE when it is none of these.
 */
export function parseAddress(text: string): Address {
  const [, kind, rest = ""] = /^(unix|fd|tcp):(.*)$/s.exec(text) ?? [];
  if (kind === "unix") return unixAddress(rest);
  if (kind === "fd" && /^\d{1,9}$/.test(rest)) return { kind: "fd", fd: Number(rest) };
  if (kind === "tcp") return tcpAddress(text, rest);
  throw new MultifdError("USAGE", `"${text}" is no address: use unix:PATH, fd:N or tcp:HOST:PORT`);
}

/** The inverse of parseAddress. */
export function formatAddress(address: Address): string {
  if (address.kind === "unix") return `unix:${address.path}`;
  if (address.kind === "fd") return `fd:${address.fd}`;
  const host = address.host.includes(":") ? `[${address.host}]` : address.host;
  return `tcp:${host}:${address.port}`;
}

/** Whether a tcp host can only be reached from this machine. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^(::ffff:)?127\.\d+\.\d+\.\d+$/i.test(host);
}

function unixAddress(path: string): Address {
  const bytes = Buffer.byteLength(path);
  if (bytes === 0 || path.includes("\0")) {
    throw new MultifdError("USAGE", "unix: needs the path of a socket");
  }
  if (bytes > UNIX_PATH_BYTES) {
    throw new MultifdError(
      "USAGE",
      `the socket path has ${bytes} bytes and unix sockets take at most ${UNIX_PATH_BYTES}: use a shorter one`,
    );
  }
  return { kind: "unix", path };
}

function tcpAddress(text: string, rest: string): Address {
  const [, bracketed, plain, digits] = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(rest) ?? [];
  const host = bracketed ?? plain;
  const port = Number(digits);
  if (host === undefined || !(port <= 65535)) {
    throw new MultifdError("USAGE", `"${text}" is no tcp address: use tcp:HOST:PORT with a port up to 65535`);
  }
  return { kind: "tcp", host, port };
}
