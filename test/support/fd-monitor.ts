import { closeSync, readSync, writeSync } from "node:fs";
import koffi from "koffi";
import type { Monitor } from "../../src/qmp/monitor.ts";
import type { QemuProcess } from "../../src/vm/qemu-process.ts";

const libc = koffi.load(null);
const openSocket = libc.func("int socket(int domain, int type, int protocol)");
const connectSocket = libc.func("int connect(int fd, const void *address, uint32_t length)");
const sendMessage = libc.func("long sendmsg(int fd, const void *message, int flags)");
const AF_UNIX = 1;
const SOCK_STREAM_CLOEXEC = 0x80001;

/** Arguments that give a VM the second monitor through which descriptors go. */
export function fdMonitorArgs(path: string): string[] {
  return ["-qmp", `unix:${path},server=on,wait=off`];
}

/**
 * A VM's monitor that passes descriptors: commands with one go, blocking, through a second monitor at `path`, since an
 * fdset belongs to QEMU as a whole.
 */
export function passingMonitor(vm: QemuProcess, path: string): Monitor {
  const { qmp } = vm;
  return {
    place: qmp.place,
    version: qmp.version,
    pid: vm.pid,
    passesFds: true,
    onEvent: (listener) => qmp.onEvent(listener),
    close: async () => undefined,
    execute: async (command, args, options = {}) =>
      options.fd === undefined
        ? qmp.execute(command, args, options)
        : executeWithFd(path, { execute: command, arguments: args }, options.fd),
  };
}

function executeWithFd(path: string, command: object, fd: number): unknown {
  const socket = openSocket(AF_UNIX, SOCK_STREAM_CLOEXEC, 0);
  try {
    const address = Buffer.alloc(110);
    address.writeUInt16LE(AF_UNIX, 0);
    address.write(path, 2);
    if (connectSocket(socket, address, address.length) < 0) throw new Error(`no monitor at ${path}`);
    readLine(socket);
    writeSync(socket, '{"execute":"qmp_capabilities"}\n');
    readLine(socket);
    sendWithFd(socket, Buffer.from(`${JSON.stringify(command)}\n`), fd);
    const answer = JSON.parse(readLine(socket));
    if (answer.error !== undefined) throw new Error(answer.error.desc);
    return answer.return;
  } finally {
    closeSync(socket);
  }
}

/** struct msghdr and cmsghdr of 64-bit Linux. */
function sendWithFd(socket: number, bytes: Buffer, fd: number): void {
  const control = Buffer.alloc(24);
  control.writeBigUInt64LE(20n, 0);
  control.writeInt32LE(1, 8); // SOL_SOCKET
  control.writeInt32LE(1, 12); // SCM_RIGHTS
  control.writeInt32LE(fd, 16);
  const vector = pointers(koffi.address(bytes), bytes.length);
  const message = pointers(0, 0, koffi.address(vector), 1, koffi.address(control), control.length, 0);
  if (Number(sendMessage(socket, message, 0)) !== bytes.length) throw new Error("sendmsg failed");
}

function pointers(...values: readonly (number | bigint)[]): Buffer {
  const bytes = Buffer.alloc(8 * values.length);
  for (const [n, value] of values.entries()) bytes.writeBigUInt64LE(BigInt(value), 8 * n);
  return bytes;
}

/** The next line that is no event. */
function readLine(socket: number): string {
  const byte = Buffer.alloc(1);
  let line = "";
  while (readSync(socket, byte) === 1) {
    line += byte.toString("latin1");
    if (!line.endsWith("\n")) continue;
    if (!line.includes('"event"')) return line;
    line = "";
  }
  throw new Error(`the monitor closed after "${line}"`);
}
