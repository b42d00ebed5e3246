import net from "node:net";
import { crc32 } from "node:zlib";
import { MultifdError } from "../src/errors.ts";
import { ChannelWalker } from "../src/formats/migration/channel-walker.ts";
import { padded, type WriteAt, writeAt } from "../src/io/file-io.ts";
import { SlabArena } from "../src/io/slab-arena.ts";
import { WriteRing } from "../src/io/write-ring.ts";
import { answering } from "../src/pool/answer.ts";
import { ControlBlock } from "../src/pool/control-block.ts";
import { ExtentWriter } from "../src/pool/extent-writer.ts";
import type { Answer, Drained, DrainTask } from "../src/pool/messages.ts";
import { paced } from "../src/pool/pacer.ts";

const arena = new SlabArena();

/** Pool task: drains one of QEMU's connections into its own extents of the image. */
export function drain(task: DrainTask): Promise<Answer<Drained>> {
  return answering(() => drainChannel(task, writeAt));
}

/**
 * Reads the connection to its end: bytes go socket -> slot -> disk, and are walked and checksummed while
 * they are still in the cache. Rejects when the bytes are no migration stream or the disk fails.
 */
export async function drainChannel(task: DrainTask, write: WriteAt): Promise<Drained> {
  const control = new ControlBlock(task.control);
  const extents = new ExtentWriter(control, task);
  const walker = new ChannelWalker();
  const checksums: number[] = [];
  const slots = Array.from({ length: task.slots }, () => arena.take(task.blockBytes));
  let crc = 0;
  let received = 0;
  let firstByteAt = 0;

  const submit = async (slot: Uint8Array, length: number): Promise<void> => {
    // The checksum was taken from this slot already; from here on it belongs to the write.
    if (task.checksum) checksums.push(crc);
    crc = 0;
    const offset = extents.place(length);
    const stored = control.addStored(length);
    if (task.maxBytes !== null && stored > task.maxBytes) throw tooLarge(task.maxBytes);
    await paced(control, length, task.rate);
    const whole = padded(length);
    slot.fill(0, length, whole);
    await write(task.image.fd, slot.subarray(0, whole), task.image.base + offset);
  };

  const accept = (bytes: number): boolean => {
    // Main keeps the connection open a little longer; QEMU must not complete meanwhile what is lost already.
    if (control.giveUp) throw new MultifdError("CANCELLED", "the run was given up");
    const chunk = ring.latest(bytes);
    if (received === 0) firstByteAt = performance.now();
    received += bytes;
    control.setMoved(task.connection, received);
    walker.push(chunk);
    if (walker.identity !== null && control.identity(task.connection) === "unknown") {
      control.identify(task.connection, walker.identity.kind === "main" ? "main" : walker.identity.id);
    }
    if (task.checksum) crc = crc32(chunk, crc);
    return ring.advance(bytes);
  };

  let fail: (error: unknown) => void = () => undefined;
  let socket: net.Socket;
  const ring = new WriteRing(
    slots,
    submit,
    () => socket.resume(),
    (error) => fail(error),
  );
  await new Promise<void>((resolve, reject) => {
    fail = (error) => {
      reject(error);
      socket?.destroy();
    };
    control.take(task.connection);
    socket = openSocket(
      task.socketFd,
      () => ring.space(),
      (bytes) => {
        try {
          return accept(bytes);
        } catch (error) {
          fail(error);
          return false;
        }
      },
    );
    socket.on("end", resolve);
    socket.on("error", (error) => fail(connectionLost(error, received)));
    socket.on("close", resolve);
  });
  const activeMs = performance.now() - firstByteAt;
  await ring.finish();
  const summary = walker.finish();
  arena.give(slots);
  return {
    summary,
    blockBytes: task.blockBytes,
    extents: extents.extents,
    claimedEnd: extents.claimedEnd,
    checksums: task.checksum ? Uint32Array.from(checksums) : null,
    activeMs,
  };
}

/** `onread` together with `fd` is Node's own documented pair; its type declarations lack it. */
function openSocket(fd: number, buffer: () => Uint8Array, callback: (bytes: number) => boolean): net.Socket {
  const options = { fd, readable: true, writable: false, onread: { buffer, callback } };
  return new net.Socket(options as net.SocketConstructorOpts);
}

function connectionLost(error: Error, offset: number): MultifdError {
  const text = `the connection broke after ${offset} bytes: ${error.message}`;
  return new MultifdError("STREAM_INCOMPLETE", text, { offset }, error);
}

function tooLarge(maxBytes: number): MultifdError {
  const text = `the migration streams grew beyond --max-bytes ${maxBytes}: stop the VM before saving it, or allow more`;
  return new MultifdError("LIMIT_EXCEEDED", text, { maxBytes });
}
