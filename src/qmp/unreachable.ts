import { stat } from "node:fs/promises";
import { type ErrorDetails, MultifdError } from "../errors.ts";

/** Longest path that fits sun_path of struct sockaddr_un with its closing NUL. */
const UNIX_PATH_MAX = 107;

const IN_USE =
  "it is probably in use by another client, such as libvirt, for QEMU serves one at a time: close that one, or give QEMU another -qmp socket";

const BY_ERRNO: Readonly<Record<string, string>> = {
  ENOENT:
    "there is no such socket; check the path, and that QEMU runs with -qmp unix:PATH,server=on,wait=off",
  ENOTDIR: "there is no such socket; check the path",
  ENOTSOCK: "that is no socket; name the one of QEMU's -qmp unix:PATH,server=on,wait=off",
  ECONNREFUSED: "nobody listens there any more; its QEMU has ended, or was started without server=on",
  EACCES: "no permission; become the user of that QEMU, or root",
  EPERM: "no permission; become the user of that QEMU, or root",
  EPROTOTYPE: "that is a socket of another kind; name the one of QEMU's -qmp unix:PATH,server=on,wait=off",
  EAGAIN: `too many clients wait there already; ${IN_USE}`,
};

function unreachable(place: string, reason: string, details: ErrorDetails = {}): MultifdError {
  const message = `cannot use QEMU's monitor at ${place}: ${reason}`;
  return new MultifdError("MONITOR_UNREACHABLE", message, { path: place, ...details });
}

/** Rejects with MONITOR_UNREACHABLE if connecting to `place` is hopeless, in better words than connect(2) has. */
export async function expectSocket(place: string): Promise<void> {
  if (Buffer.byteLength(place) > UNIX_PATH_MAX) {
    const reason = `its path is longer than ${UNIX_PATH_MAX} bytes, which no socket's is; use a shorter or a relative one`;
    throw unreachable(place, reason, { errno: "ENAMETOOLONG" });
  }
  const found = await stat(place).catch((error: NodeJS.ErrnoException) => error);
  if (found instanceof Error) throw notConnected(place, found);
  if (!found.isSocket()) throw notConnected(place, { code: "ENOTSOCK", message: "" });
}

/** The connection was not made. */
export function notConnected(
  place: string,
  { code = "", message }: { code?: string | undefined; message: string },
): MultifdError {
  return unreachable(place, BY_ERRNO[code] ?? message, { errno: code });
}

/** The connection was made, and no greeting has come. */
export function notGreeted(place: string, timeoutMs: number, unfinished: string): MultifdError {
  if (unfinished !== "") return noQmp(place, unfinished);
  const reason = `no greeting within ${timeoutMs} ms; ${IN_USE}. It may also hang, or be no QMP monitor`;
  return unreachable(place, reason, { awaited: "its greeting", timeoutMs });
}

/** The connection ended before a greeting. */
export function closedUngreeted(place: string, reason: string): MultifdError {
  return unreachable(place, `the connection ended before a greeting came (${reason}); is it QMP at all?`);
}

/** Something else than a greeting came first. */
export function noQmp(place: string, said: string): MultifdError {
  const reason = /^QEMU .* monitor - type 'help'/.test(said)
    ? "that is the human monitor; name a QMP socket (-qmp unix:PATH,server=on,wait=off, or -mon with mode=control)"
    : `what listens there does not speak QMP; it said ${JSON.stringify(said.slice(0, 80))}`;
  return unreachable(place, reason, { said: said.slice(0, 80) });
}
