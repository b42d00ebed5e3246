import { type ChildProcess, spawn } from "node:child_process";
import { rmSync } from "node:fs";
import { access, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { MultifdError } from "../errors.ts";
import { privateDirectory } from "../io/private-directory.ts";
import { connectQmp, type QmpClient } from "../qmp/client.ts";
import type { QemuBinary } from "./find-qemu.ts";

export interface StartOptions {
  readonly binary: QemuBinary;
  /** Everything but the monitor; see guestArgs. */
  readonly args: readonly string[];
  /** How long QEMU may take until its monitor answers, in milliseconds; 30 s if absent. */
  readonly timeoutMs?: number;
}

export interface QemuExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** Longest path that fits sun_path of struct sockaddr_un with its closing NUL. */
const UNIX_PATH_MAX = 107;
const STDERR_KEPT = 64 * 1024;

const running = new Set<QemuProcess>();
process.on("exit", () => {
  for (const qemu of running) qemu.killSync();
});

/** A running QEMU of ours. It and its directory are gone after quit() or kill(), and when this process ends. */
export class QemuProcess {
  readonly binary: QemuBinary;
  readonly pid: number;
  /** A private directory (0700) for this VM's sockets; removed at the end. */
  readonly directory: string;
  readonly exited: Promise<QemuExit>;
  readonly #child: ChildProcess;
  #stderr = "";
  #qmp: QmpClient | undefined;

  /** Use startQemu(). */
  constructor(binary: QemuBinary, child: ChildProcess, pid: number, directory: string) {
    this.binary = binary;
    this.pid = pid;
    this.directory = directory;
    this.#child = child;
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-STDERR_KEPT);
    });
    running.add(this);
    // "close" comes after "exit", when the last word of stderr has been read too.
    this.exited = new Promise((resolve) => child.on("close", (code, signal) => resolve({ code, signal })));
  }

  get qmp(): QmpClient {
    if (this.#qmp === undefined) throw new MultifdError("INTERNAL", "QEMU's monitor is not connected yet");
    return this.#qmp;
  }

  /** The last 64 KiB of what QEMU wrote to stderr. */
  get stderr(): string {
    return this.#stderr;
  }

  /** A path for a socket in the private directory. */
  socketPath(name: string): string {
    return socketPath(this.directory, name);
  }

  /** Connects to the monitor as soon as QEMU opens it. */
  async connect(timeoutMs: number): Promise<void> {
    const deadline = Date.now() + timeoutMs;
    while (this.#qmp === undefined) {
      if (this.#hasEnded()) throw new MultifdError("QEMU_FAILED", await this.#lastWords(), { pid: this.pid });
      this.#qmp = await this.#tryConnect(deadline);
    }
  }

  async #tryConnect(deadline: number): Promise<QmpClient | undefined> {
    const timeoutMs = Math.max(1, deadline - Date.now());
    try {
      return await connectQmp(this.socketPath("qmp"), { timeoutMs, explainLoss: () => this.#lastWords() });
    } catch (error) {
      if (!isNotYetListening(error) || Date.now() >= deadline) throw error;
      await sleep(5);
      return undefined;
    }
  }

  /** Asks QEMU to end; one that does not within 5 s is killed. Fine to call on one that ended already. */
  async quit(): Promise<QemuExit> {
    await this.#qmp?.execute("quit", undefined, { timeoutMs: 5000 }).catch(() => {});
    await Promise.race([this.exited, sleep(5000, undefined, { ref: false })]);
    return await this.kill();
  }

  /** Ends QEMU at once, as a crash would, and cleans up. */
  async kill(): Promise<QemuExit> {
    this.#child.kill("SIGKILL");
    const exit = await this.exited;
    await this.#qmp?.close();
    await rm(this.directory, { recursive: true, force: true });
    running.delete(this);
    return exit;
  }

  /** For our own exit, where nothing can be awaited. */
  killSync(): void {
    this.#child.kill("SIGKILL");
    rmSync(this.directory, { recursive: true, force: true });
  }

  #hasEnded(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  /** Why the monitor is gone. A QEMU that is about to end gets a second to do so and to say why. */
  async #lastWords(): Promise<string> {
    const exit = await Promise.race([this.exited, sleep(1000, undefined, { ref: false })]);
    const how =
      exit === undefined
        ? "still runs"
        : exit.signal === null
          ? `ended with status ${exit.code}`
          : `was ended by ${exit.signal}`;
    const said = this.#stderr.trim();
    return `QEMU ${this.binary.version} ${how}${said === "" ? " and said nothing" : `: ${said}`}`;
  }
}

/**
 * Starts QEMU with a monitor of its own and connects to it.
 * Rejects with QEMU_FAILED, with QEMU's own stderr in the message, when QEMU ends or stays silent; nothing is left then.
 */
export async function startQemu(options: StartOptions): Promise<QemuProcess> {
  const { binary, args, timeoutMs = 30_000 } = options;
  const directory = privateDirectory("vm");
  try {
    const monitor = `unix:${socketPath(directory, "qmp").replaceAll(",", ",,")},server=on,wait=off`;
    const child = await spawnTied(binary.path, [...args, "-qmp", monitor]);
    const qemu = new QemuProcess(binary, child, child.pid ?? 0, directory);
    try {
      await qemu.connect(timeoutMs);
      return qemu;
    } catch (error) {
      await qemu.kill();
      throw error;
    }
  } catch (error) {
    await rm(directory, { recursive: true, force: true });
    throw error;
  }
}

/**
 * Spawns a child that the kernel kills when this process ends, however it ends: setpriv sets
 * PR_SET_PDEATHSIG, which Node cannot, and becomes the child. Without util-linux only an orderly end counts.
 */
async function spawnTied(path: string, args: readonly string[]): Promise<ChildProcess> {
  const setpriv = "/usr/bin/setpriv";
  const tied = await exists(setpriv);
  const [command, ...rest] = tied ? [setpriv, "--pdeathsig", "KILL", path, ...args] : [path, ...args];
  const child = spawn(command as string, rest, { stdio: ["ignore", "ignore", "pipe"] });
  await new Promise<void>((resolve, reject) => {
    child.on("spawn", resolve);
    child.on("error", (error) => {
      reject(new MultifdError("QEMU_FAILED", `cannot start ${path}: ${error.message}`, { path }, error));
    });
  });
  return child;
}

function socketPath(directory: string, name: string): string {
  const path = join(directory, name);
  if (Buffer.byteLength(path) <= UNIX_PATH_MAX) return path;
  const message = `the socket path ${path} is longer than ${UNIX_PATH_MAX} bytes; use a shorter temporary directory`;
  throw new MultifdError("USAGE", message, { path });
}

/** Before QEMU binds its socket, and between its bind and its listen. */
function isNotYetListening(error: unknown): boolean {
  return error instanceof MultifdError && ["ENOENT", "ECONNREFUSED"].includes(String(error.details.errno));
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}
