import { fileURLToPath } from "node:url";
import type { HelperOptions } from "./helper-process.ts";

/** One fault at one exact place of a helper's life. */
export interface FaultSpec {
  readonly thread: "main" | "worker";
  /** A function of node:fs, an accepted or made connection, a socket's write, or a word of the control block. */
  readonly call:
    | "write"
    | "read"
    | "fdatasync"
    | "ftruncateSync"
    | "renameSync"
    | "unlinkSync"
    | "fsync"
    | "fsyncSync"
    | "accept"
    | "connect"
    | "send"
    | "take"
    | "addDelivered"
    | "setTailSent"
    | "setFinished";
  /** Only calls with this text in one of their arguments count; all if absent. */
  readonly with?: string;
  /** Which call of this function in its thread, from 1. */
  readonly nth: number;
  readonly when: "before" | "after";
  /** kill: SIGKILL of the helper; kill-qemu: of the QEMU that it started; terminate: SIGTERM; tear: half of a write, then SIGKILL; fail: the call fails; the rest ends a worker. */
  readonly act:
    | "kill"
    | "kill-qemu"
    | "terminate"
    | "kill-peer"
    | "tear"
    | "fail"
    | "throw"
    | "exit"
    | "exhaust";
  /** Of the peer. */
  readonly pid?: number;
  /** Of a call that fails; EIO if absent. */
  readonly errno?: string;
}

const HOOK = new URL("./fault-hook.js", import.meta.url).href;
/** Whose modules the hook can reach into; those of a bundle are its own. */
const IN_MODULES = fileURLToPath(new URL("../../src/cli/main.js", import.meta.url));

/** Makes a helper process run with a fault. */
export function withFault(fault: FaultSpec, options: HelperOptions = {}): HelperOptions {
  // A small heap, so that running out of it does not take the machine's memory first.
  const heap = fault.act === "exhaust" ? "--max-old-space-size=48" : "";
  const program = `FAULT='${JSON.stringify(fault)}'; export FAULT; node="$0"; exec "$node" ${heap} --import '${HOOK}' "$@"`;
  return { ...options, main: IN_MODULES, shell: program };
}
