import fs from "node:fs";
import koffi from "koffi";
import { afterEach } from "vitest";

const libc = koffi.load(null);
const socket = libc.func("int socket(int domain, int type, int protocol)");
const bind = libc.func("int bind(int fd, void *address, uint32_t length)");
const listen = libc.func("int listen(int fd, int backlog)");
const AF_UNIX = 1;
const SOCK_STREAM_CLOEXEC = 0o2000001;
const BACKLOG = 300;

/** Opens listening unix sockets that nobody accepts on: Node's own servers would. They are closed when a test ends. */
export function useRawListeners(): (path: string, backlog?: number) => number {
  const open: number[] = [];
  afterEach(() => {
    for (const fd of open.splice(0)) fs.closeSync(fd);
  });
  return (path, backlog) => {
    const fd = openRawListener(path, backlog);
    open.push(fd);
    return fd;
  };
}

/** One such socket; closing it is the caller's. */
export function openRawListener(path: string, backlog: number = BACKLOG): number {
  const fd = socket(AF_UNIX, SOCK_STREAM_CLOEXEC, 0);
  // struct sockaddr_un: sa_family_t, then the path with its NUL.
  const address = Buffer.concat([Buffer.from([AF_UNIX, 0]), Buffer.from(`${path}\0`)]);
  if (bind(fd, address, address.length) !== 0 || listen(fd, backlog) !== 0) {
    throw new Error(`cannot listen on ${path}: errno ${koffi.errno()}`);
  }
  return fd;
}
