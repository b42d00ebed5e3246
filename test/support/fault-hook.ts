/**
 * Preloaded into the real command line (`node --import`, in every thread) to let one fault happen at an exact place:
 * at the n-th call of a function in main or in a worker. Importing it without FAULT does nothing.
 */
import type { Buffer } from "node:buffer";
import fs from "node:fs";
import net from "node:net";
import { isMainThread } from "node:worker_threads";
import type { FaultSpec } from "./fault-spec.ts";

type AnyFunction = (...args: unknown[]) => unknown;

const spec = JSON.parse(process.env.FAULT ?? "null") as FaultSpec | null;
if (spec !== null && isMainThread === (spec.thread === "main")) await install(spec);

const { writeSync } = fs;

async function install(fault: FaultSpec): Promise<void> {
  const count = { calls: 0 };
  replace(fault, count, ...(await place(fault)));
  // Workers write short runs of pages without waiting; a write is a write.
  if (fault.call === "write" && fault.thread === "worker") replace(fault, count, fs as never, "writeSync");
}

function replace(
  fault: FaultSpec,
  count: { calls: number },
  owner: Record<string, unknown>,
  name: string,
): void {
  const original = owner[name] as AnyFunction;
  const replacement = function (this: unknown, ...args: unknown[]): unknown {
    // Events of a server: only connections count.
    if (fault.call === "accept" && args[0] !== "connection") return original.apply(this, args);
    if (fault.with !== undefined && !args.some((arg) => mentions(arg, fault.with ?? "")))
      return original.apply(this, args);
    count.calls++;
    if (count.calls !== fault.nth) return original.apply(this, args);
    if (fault.act === "fail") return refuse(fault, args);
    if (fault.act === "tear") tear(args);
    else if (fault.when === "after") return actAfter(fault, () => original.apply(this, args), args);
    act(fault);
    return original.apply(this, args);
  };
  // promisify looks for symbols on fs functions; they must survive.
  Object.defineProperties(replacement, Object.getOwnPropertyDescriptors(original));
  owner[name] = replacement;
}

function mentions(arg: unknown, text: string): boolean {
  return (typeof arg === "string" || arg instanceof Uint8Array) && String(arg).includes(text);
}

/** Where the function of a fault hangs. */
async function place({ call }: FaultSpec): Promise<[Record<string, unknown>, string]> {
  if (call === "accept") return [net.Server.prototype as unknown as Record<string, unknown>, "emit"];
  if (call === "connect") return [net as unknown as Record<string, unknown>, "connect"];
  if (call === "send") return [net.Socket.prototype as unknown as Record<string, unknown>, "write"];
  if (call === "setTailSent" || call === "addDelivered" || call === "setFinished" || call === "take") {
    const { ControlBlock } = await import("../../src/pool/control-block.ts");
    return [ControlBlock.prototype as unknown as Record<string, unknown>, call];
  }
  return [fs as unknown as Record<string, unknown>, call];
}

/** Synchronous calls are over when they return, the others when they call back. */
function actAfter(fault: FaultSpec, call: () => unknown, args: unknown[]): unknown {
  const callback = args.at(-1);
  if (typeof callback === "function") {
    args[args.length - 1] = (...results: unknown[]) => {
      act(fault);
      callback(...results);
    };
    return call();
  }
  const result = call();
  act(fault);
  return result;
}

function act(fault: FaultSpec): void {
  switch (fault.act) {
    case "kill":
    case "tear":
      process.kill(process.pid, "SIGKILL");
      pause();
      return;
    case "kill-qemu":
      killQemu();
      return;
    case "terminate":
      process.kill(process.pid, "SIGTERM");
      // Main hears of it in its own time; a worker must not be done before.
      if (!isMainThread) pause(300);
      return;
    case "kill-peer":
      killPeer(fault.pid ?? 0);
      return;
    case "throw":
      setImmediate(() => {
        throw new Error("a worker that was told to throw");
      });
      return;
    case "exit":
      process.exit(9);
      return;
    case "exhaust":
      exhaust();
  }
}

/** Each thread counts its own calls: another one may have been there before. */
function killPeer(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

/** The QEMU among our children, which is dead when this returns. */
function killQemu(): void {
  const children = fs.readFileSync(`/proc/self/task/${process.pid}/children`, "utf8").trim().split(" ");
  const isQemu = (pid: string): boolean => fs.readFileSync(`/proc/${pid}/comm`, "utf8").startsWith("qemu");
  for (const pid of children.filter(isQemu).map(Number)) {
    process.kill(pid, "SIGKILL");
    while (!fs.readFileSync(`/proc/${pid}/stat`, "utf8").includes(") Z ")) pause(10);
  }
}

/** A signal to ourselves may take a moment; nothing may happen meanwhile. */
function pause(ms = 10_000): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

/** Fills the thread's heap until V8 ends the thread. */
function exhaust(): void {
  const hoard: unknown[] = [];
  for (;;) hoard.push(new Array(1024).fill(hoard.length));
}

/** The first half of a write arrives, and nothing more. */
function tear(args: unknown[]): void {
  const [fd, buffer, offset, length, position] = args as [number, Buffer, number, number, number];
  const half = Math.max(512, Math.floor(length / 2 / 4096) * 4096);
  // A buffer of its own would not be aligned for O_DIRECT.
  writeSync(fd, buffer, offset, half, position);
}

/** The call fails as the spec says, through its callback or at once. */
function refuse(fault: FaultSpec, args: unknown[]): unknown {
  const code = fault.errno ?? "EIO";
  const error = Object.assign(new Error(`${code}: told to fail, ${fault.call}`), {
    code,
    syscall: fault.call,
  });
  const callback = args.at(-1);
  if (typeof callback !== "function") throw error;
  setImmediate(() => callback(error));
  return undefined;
}
