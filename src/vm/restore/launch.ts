import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { MultifdError } from "../../errors.ts";
import { privateDirectory } from "../../io/private-directory.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import { QemuWatch } from "../qemu-watch.ts";
import { openMonitor } from "../target.ts";

export interface LaunchOptions {
  /** QEMU and its arguments, without -incoming. */
  readonly command: readonly string[];
  /** It is to live on without this process: a session of its own, and nothing of our terminal. */
  readonly detached: boolean;
  /** QEMU's stdout goes to our stderr: ours is for programs. */
  readonly stdoutToStderr: boolean;
  /** Its working directory; ours when left out. */
  readonly cwd?: string | undefined;
}

export interface QemuExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

const READY_MS = 30_000;
const RETRY_MS = 10;
const LAST_WORDS = 4096;

/** A QEMU that was started with the user's arguments, waiting for its image. */
export class LaunchedQemu {
  readonly pid: number;
  readonly exited: Promise<QemuExit>;
  /** Where its private monitor ("qmp") and, if it is detached, its last words ("stderr") are. */
  readonly directory: string;
  readonly #child: ChildProcess;
  readonly #detached: boolean;
  /** QEMU itself, where the user's command is a script that starts it. */
  #inner: { readonly pid: number; readonly watch: QemuWatch } | null = null;

  constructor(child: ChildProcess, directory: string, detached: boolean) {
    this.#detached = detached;
    this.pid = child.pid as number;
    this.#child = child;
    this.directory = directory;
    this.exited = new Promise((resolve) => child.on("exit", (code, signal) => resolve({ code, signal })));
  }

  get monitorPath(): string {
    return join(this.directory, "qmp");
  }

  get ended(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  async endsWithin(ms: number): Promise<boolean> {
    await Promise.race([this.exited, sleep(ms, undefined, { ref: false })]);
    return this.ended;
  }

  async connect(): Promise<Monitor> {
    const deadline = Date.now() + READY_MS;
    for (;;) {
      if (this.ended) throw new MultifdError("QEMU_FAILED", `QEMU did not start: ${this.lastWords()}`, {});
      try {
        const monitor = await openMonitor({ qmp: this.monitorPath }, Math.max(1, deadline - Date.now()));
        const { pid } = monitor;
        if (pid !== null && pid !== this.pid) this.#inner = { pid, watch: new QemuWatch(pid) };
        return monitor;
      } catch (error) {
        if (Date.now() > deadline) throw error;
        await sleep(RETRY_MS);
      }
    }
  }

  /** What it said last where that went to a file of ours; else where to look. */
  lastWords(): string {
    try {
      const said = readFileSync(join(this.directory, "stderr"), "utf8").trim().slice(-LAST_WORDS);
      return said === "" ? `it said nothing${this.#howItEnded()}` : said;
    } catch {
      return "see what it wrote to stderr";
    }
  }

  #howItEnded(): string {
    const { exitCode, signalCode } = this.#child;
    if (signalCode !== null) return ` and ended by ${signalCode}`;
    return exitCode === null ? "" : ` and ended with exit status ${exitCode}`;
  }

  /** Ends it at once: its VM never ran. */
  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    if (this.#inner?.watch.ended === false) process.kill(this.#inner.pid, "SIGKILL");
    await this.exited;
    this.forget();
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** It is the user's from now on; its own monitor, if the user gave it one, is not touched. */
  forget(): void {
    rmSync(this.directory, { recursive: true, force: true });
    if (this.#detached) this.#child.unref();
    this.#unwatch();
  }

  /** It is left behind with its private monitor, through which somebody else can go on; nothing of it keeps this process. */
  leave(): void {
    this.#child.unref();
    this.#unwatch();
  }

  #unwatch(): void {
    this.#inner?.watch.close();
    this.#inner = null;
  }
}

/** What makes a QEMU wait for an image. */
export const WAITING: readonly string[] = ["-incoming", "defer", "-S"];

/**
 * Starts QEMU with a private monitor.
 * @param extra arguments besides, given the private directory; those that make it wait for an image when left out
 * @throws MultifdError USAGE, QEMU_MISSING
 */
export async function launchQemu(
  { command, detached, stdoutToStderr, cwd }: LaunchOptions,
  extra: (directory: string) => readonly string[] = () => WAITING,
): Promise<LaunchedQemu> {
  const [program, ...args] = command;
  if (program === undefined)
    throw new MultifdError(
      "USAGE",
      "QEMU's command line is missing: restore IMAGE -- qemu-system-x86_64 ARGS…",
    );
  refuseArguments(args);
  const directory = privateDirectory("vm");
  const log = detached ? openSync(join(directory, "stderr"), "a", 0o600) : null;
  try {
    const monitor = `unix:${join(directory, "qmp").replaceAll(",", ",,")},server=on,wait=off`;
    const ours = [...extra(directory), "-qmp", monitor];
    const child = spawn(program, [...args, ...ours], {
      detached,
      cwd,
      stdio: log === null ? ["inherit", stdoutToStderr ? 2 : "inherit", "inherit"] : ["ignore", log, log],
    });
    await started(child, program);
    return new LaunchedQemu(child, directory, detached);
  } catch (error) {
    rmSync(directory, { recursive: true, force: true });
    throw error;
  } finally {
    if (log !== null) closeSync(log);
  }
}

/** What the restore decides itself, or what would take QEMU out of our hands. */
const REFUSED: Readonly<Record<string, string>> = {
  "-incoming": "restore adds it",
  "-daemonize": "use --detach, which waits until the VM is restored",
  "-loadvm": "a VM starts from one state only",
};

function refuseArguments(args: readonly string[]): void {
  for (const argument of args) {
    const name = argument.replace(/^--/, "-");
    const reason = REFUSED[name];
    if (reason !== undefined)
      throw new MultifdError("USAGE", `${argument} must not be among QEMU's arguments: ${reason}`, {});
  }
}

function started(child: ChildProcess, program: string): Promise<void> {
  return new Promise((resolve, reject) => {
    child.on("spawn", resolve);
    child.on("error", (error) =>
      reject(
        new MultifdError("QEMU_MISSING", `cannot start ${program}: ${error.message}`, { program }, error),
      ),
    );
  });
}
