import { koffi } from "./koffi.ts";

/**
 * The few libc calls that Node does not offer. Synchronous and short ones only: koffi's asynchronous calls
 * have crashed in worker threads. Values are Linux's; they are the same on x86-64 and arm64 except
 * where fs.constants knows better (O_DIRECT).
 */
const libc = koffi.load(null);

const fcntlInt = libc.func("int fcntl(int fd, int command, int argument)");
const shutdownSocket = libc.func("int shutdown(int fd, int how)");
const ioctlOut = libc.func("int ioctl(int fd, unsigned long request, _Out_ int *value)");
const pollOne = libc.func("int poll(_Inout_ void *fds, unsigned long count, int timeoutMs)");
const madviseCall = libc.func("int madvise(void *address, size_t length, int advice)");
const fallocateCall = libc.func("int fallocate(int fd, int mode, int64_t offset, int64_t length)");
const fadviseCall = libc.func("int posix_fadvise(int fd, int64_t offset, int64_t length, int advice)");
const pageSizeCall = libc.func("int getpagesize()");
const lseekCall = libc.func("int64_t lseek(int fd, int64_t offset, int whence)");
const flockCall = libc.func("int flock(int fd, int operation)");
const socketOption = libc.func(
  "int getsockopt(int fd, int level, int name, _Out_ void *value, _Inout_ uint32_t *length)",
);
const setSocketOption = libc.func(
  "int setsockopt(int fd, int level, int name, const void *value, uint32_t length)",
);
const sendMessage = libc.func("long sendmsg(int fd, void *message, int flags)");
/** pidfd_open has no wrapper in glibc before 2.36. */
const pidSyscall = libc.func("long syscall(long number, int pid, unsigned int flags)");

const F_SETFD = 2;
const FD_CLOEXEC = 1;
const F_GETFL = 3;
const F_DUPFD_CLOEXEC = 1030;
const SHUT_RDWR = 2;
const SIOCOUTQ = 0x5411;
const POLLIN = 1;
const POLLERR = 0x8;
const POLLHUP = 0x10;
const POLLRDHUP = 0x2000;
const MADV_HUGEPAGE = 14;
const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;
const SEEK_HOLE = 4;
const POSIX_FADV_DONTNEED = 4;
const LOCK_SH = 1;
const LOCK_EX = 2;
const LOCK_NB = 4;
const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
const SO_PEERCRED = 17;
const SO_DOMAIN = 39;
const AF_UNIX = 1;
const SCM_RIGHTS = 1;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const SYS_PIDFD_OPEN = 434;

/** An errno as an error of the shape that Node's own fs errors have. */
export interface SystemError extends Error {
  code: string;
  errno: number;
  syscall: string;
}

const ERRNO_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(koffi.os.errno).map(([name, value]) => [value as number, name]),
);

function systemError(syscall: string): SystemError {
  const errno = koffi.errno();
  const code = ERRNO_NAMES.get(errno) ?? `errno ${errno}`;
  return Object.assign(new Error(`${syscall}: ${code}`), { code, errno: -errno, syscall });
}

function check(result: number, syscall: string): number {
  if (result < 0) throw systemError(syscall);
  return result;
}

/** A new descriptor of the same open file, closed on exec. The caller owns it. */
export function duplicate(fd: number): number {
  return check(fcntlInt(fd, F_DUPFD_CLOEXEC, 3), "fcntl");
}

/** Keeps an inherited descriptor from being inherited once more. Node does so for the lowest numbers only. */
export function closeOnExec(fd: number): void {
  check(fcntlInt(fd, F_SETFD, FD_CLOEXEC), "fcntl");
}

/** Open flags of a descriptor (O_APPEND, O_DIRECT, access mode). Throws EBADF when it is not open. */
export function openFlags(fd: number): number {
  return check(fcntlInt(fd, F_GETFL, 0), "fcntl");
}

/** Ends a connection in both directions and wakes whoever reads or writes it, in any thread. */
export function shutdownConnection(fd: number): void {
  // ENOTCONN: the peer was quicker. There is nothing else to do about any error here.
  shutdownSocket(fd, SHUT_RDWR);
}

/** Asks for room for so many bytes on their way to the peer; the kernel gives as much as it allows, and says nothing. */
export function setSendBuffer(fd: number, bytes: number): void {
  const value = Buffer.alloc(4);
  value.writeInt32LE(bytes);
  check(setSocketOption(fd, SOL_SOCKET, SO_SNDBUF, value, value.byteLength), "setsockopt");
}

/** Bytes that the peer of a unix socket has not read (of a tcp socket: not acknowledged). */
export function unsentBytes(fd: number): number {
  const value = [0];
  check(ioctlOut(fd, SIOCOUTQ, value), "ioctl");
  return value[0] as number;
}

/** Whether a listening socket has a connection that was not accepted yet. */
export function hasPendingConnection(fd: number): boolean {
  return isReadable(fd);
}

/** Whether the peer of a connection sends nothing any more. What it has sent before may still wait to be read. */
export function hasHungUp(fd: number): boolean {
  return polled(fd, POLLRDHUP | POLLHUP | POLLERR) !== 0;
}

/** Who stood at the other end when it connected. */
export interface PeerCredentials {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

/** The kernel's word on a unix socket's peer; null for other sockets, whose peers have none. */
export function peerCredentials(fd: number): PeerCredentials | null {
  if (readSocketOption(fd, SO_DOMAIN, 4).readInt32LE(0) !== AF_UNIX) return null;
  const ucred = readSocketOption(fd, SO_PEERCRED, 12);
  return { pid: ucred.readInt32LE(0), uid: ucred.readUInt32LE(4), gid: ucred.readUInt32LE(8) };
}

function readSocketOption(fd: number, name: number, bytes: number): Buffer {
  const value = Buffer.alloc(bytes);
  check(socketOption(fd, SOL_SOCKET, name, value, [bytes]), "getsockopt");
  return value;
}

/**
 * Sends bytes over a unix socket, and with the first of them a descriptor, of which the receiver gets a duplicate. Answers
 * how many bytes went: at least one, and the descriptor is on its way then. Throws EAGAIN when there is no room now.
 */
export function sendWithDescriptor(socketFd: number, bytes: Uint8Array, fd: number): number {
  // struct msghdr, struct iovec, struct cmsghdr with one int and its padding, as every 64-bit Linux has them. All of it
  // is one buffer, so that what the pointers point to lives as long as the call.
  const message = Buffer.alloc(56 + 16 + 24 + bytes.byteLength);
  const base = addressOf(message);
  const [vector, control, payload] = [56, 72, 96];
  message.set(bytes, payload);
  message.writeBigUInt64LE(base + BigInt(vector), 16);
  message.writeBigUInt64LE(1n, 24);
  message.writeBigUInt64LE(base + BigInt(control), 32);
  message.writeBigUInt64LE(24n, 40);
  message.writeBigUInt64LE(base + BigInt(payload), vector);
  message.writeBigUInt64LE(BigInt(bytes.byteLength), vector + 8);
  message.writeBigUInt64LE(20n, control);
  message.writeInt32LE(SOL_SOCKET, control + 8);
  message.writeInt32LE(SCM_RIGHTS, control + 12);
  message.writeInt32LE(fd, control + 16);
  return check(Number(sendMessage(socketFd, message, MSG_DONTWAIT | MSG_NOSIGNAL)), "sendmsg");
}

/**
 * A descriptor of a process, closed on exec: it cannot come to mean another process that gets the same number. The
 * caller owns it. Throws ESRCH when there is no such process, ENOSYS before Linux 5.3.
 */
export function openProcess(pid: number): number {
  return check(pidSyscall(SYS_PIDFD_OPEN, pid, 0), "pidfd_open");
}

/** Whether the process of `openProcess` has ended, all its threads included. */
export function hasEnded(pidfd: number): boolean {
  return isReadable(pidfd);
}

function isReadable(fd: number): boolean {
  return polled(fd, POLLIN) !== 0;
}

/** Which of these events a descriptor has now. */
function polled(fd: number, events: number): number {
  const request = Buffer.alloc(8);
  request.writeInt32LE(fd, 0);
  request.writeInt16LE(events, 4);
  for (;;) {
    const ready = pollOne(request, 1, 0);
    if (ready >= 0) return request.readInt16LE(6) & events;
    // A signal interrupts even a poll that does not wait.
    const error = systemError("poll");
    if (error.code !== "EINTR") throw error;
  }
}

/** Address of a buffer's memory; the buffer must outlive its use. */
export function addressOf(memory: Uint8Array): bigint {
  return BigInt(koffi.address(memory));
}

/** Asks for huge pages; false where the kernel refuses, which costs speed only. */
export function adviseHugePages(memory: Uint8Array): boolean {
  return madviseCall(memory, memory.byteLength, MADV_HUGEPAGE) === 0;
}

/** Reserves file space, growing the file where needed. */
export function allocate(fd: number, offset: number, length: number): void {
  check(fallocateCall(fd, 0, offset, length), "fallocate");
}

/** Gives file space back; the range reads as zeros afterwards. */
export function punchHole(fd: number, offset: number, length: number): void {
  check(fallocateCall(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length), "fallocate");
}

/** Has the kernel begin to write out what it holds of a file, and forget what is written. It may do neither. */
export function dropCached(fd: number): void {
  fadviseCall(fd, 0, 0, POSIX_FADV_DONTNEED);
}

/** The processor's page, in bytes: what the page cache deals in. */
export function pageBytes(): number {
  return pageSizeCall();
}

/**
 * Where the next hole at or behind `offset` begins; the end of the file counts as one. A file system that knows no holes
 * answers the end. Moves the descriptor's position.
 */
export function nextHole(fd: number, offset: number): number {
  const hole = Number(lseekCall(fd, offset, SEEK_HOLE));
  if (hole >= 0) return hole;
  const error = systemError("lseek");
  // Not even the first byte is inside the file.
  if (error.code === "ENXIO") return offset;
  throw error;
}

/** Takes the exclusive lock of an open file; false when somebody else has one of either kind. */
export function tryLock(fd: number): boolean {
  return tryFlock(fd, LOCK_EX);
}

/** Takes the shared lock of an open file, which any number may have; false when somebody has the exclusive one. */
export function tryShare(fd: number): boolean {
  try {
    return tryFlock(fd, LOCK_SH);
  } catch {
    // On a file system without locks nobody has one.
    return true;
  }
}

function tryFlock(fd: number, operation: number): boolean {
  if (flockCall(fd, operation | LOCK_NB) === 0) return true;
  const error = systemError("flock");
  if (error.code === "EAGAIN" || error.code === "EWOULDBLOCK") return false;
  throw error;
}
