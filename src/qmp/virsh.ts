import { readFileSync } from "node:fs";
import path from "node:path";
import { MultifdError } from "../errors.ts";
import { type Ended, runProgram } from "./child.ts";
import { isQemu } from "./listening-process.ts";
import { parseMessage, parseVersion, type QmpEvent, type QmpVersion, refusal } from "./messages.ts";
import type { ExecuteOptions, Monitor } from "./monitor.ts";

export interface VirshOptions {
  /** libvirt's connection URI, as `virsh -c` takes it; virsh's own default if absent. */
  readonly uri?: string | undefined;
  /** Bounds the first contact, in milliseconds. */
  readonly timeoutMs: number;
  /** Bounds each command that does not bring its own bound, in milliseconds; 30 s if absent. */
  readonly commandTimeoutMs?: number | undefined;
}

/**
 * The monitor of a domain that libvirt runs, through `virsh qemu-monitor-command`, for libvirt keeps QEMU's socket to
 * itself. `domain` is a name, UUID or id, as virsh takes it. Rejects with MONITOR_UNREACHABLE, in virsh's words: no virsh,
 * no libvirt, no such domain, or it does not run.
 *
 * libvirt marks such a domain as tainted (custom-monitor) and knows nothing of what was done.
 */
export async function connectVirsh(domain: string, options: VirshOptions): Promise<Monitor> {
  const virsh = new Virsh(domain, options);
  const { timeoutMs } = options;
  const version = parseVersion(await virsh.command("query-version", undefined, { timeoutMs }));
  if (version === null) throw virsh.failure("QEMU gave no version");
  // As virsh has it: what was given may be an alias, or nothing.
  const uri = (await virsh.print("uri", timeoutMs)).trim();
  const isHere = URL.canParse(uri) && new URL(uri).host === "";
  const pid = isHere ? await findPid(virsh, uri, timeoutMs) : null;
  // Since libvirt 8.2; and a descriptor does not travel to another host.
  const passesFds =
    isHere && (await virsh.print("help qemu-monitor-command", timeoutMs)).includes("--pass-fds");
  return new VirshMonitor(virsh, { version, pid, passesFds });
}

class VirshMonitor implements Monitor {
  readonly place: string;
  readonly version: QmpVersion;
  readonly pid: number | null;
  readonly passesFds: boolean;
  readonly #virsh: Virsh;
  #last: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(virsh: Virsh, facts: Pick<Monitor, "version" | "pid" | "passesFds">) {
    this.#virsh = virsh;
    this.place = virsh.place;
    this.version = facts.version;
    this.pid = facts.pid;
    this.passesFds = facts.passesFds;
    virsh.lossCode = "QEMU_FAILED";
  }

  /** The time of a command begins when its turn has come. libvirt knows no out-of-band commands; `outOfBand` overtakes ours alone. */
  execute(command: string, args?: object, options: ExecuteOptions = {}): Promise<unknown> {
    const run = (): Promise<unknown> => {
      if (this.#closed) throw this.#virsh.failure("this side closed it");
      if (options.fd !== undefined && !this.passesFds) {
        throw new MultifdError("INTERNAL", `a descriptor for ${this.place}, to which none can be passed`);
      }
      return this.#virsh.command(command, args, options);
    };
    if (options.outOfBand === true) return Promise.resolve().then(run);
    const result = this.#last.then(run);
    this.#last = result.catch(() => {});
    return result;
  }

  /** There are none: libvirt keeps them. Poll. */
  onEvent(_listener: (event: QmpEvent) => void): () => void {
    return () => {};
  }

  readonly domainXml = (): Promise<string> => this.#virsh.domainXml();

  async close(): Promise<void> {
    this.#closed = true;
    this.#virsh.stop();
  }
}

/** Runs virsh, never by a shell, and makes sense of how it ends. */
class Virsh {
  readonly place: string;
  /** What it is when virsh itself fails: at first that the domain cannot be reached, later that it is lost. */
  lossCode: "MONITOR_UNREACHABLE" | "QEMU_FAILED" = "MONITOR_UNREACHABLE";
  readonly #connect: readonly string[];
  readonly #domain: string;
  readonly #commandTimeoutMs: number;
  readonly #stop = new AbortController();

  constructor(domain: string, { uri, commandTimeoutMs = 30_000 }: VirshOptions) {
    this.place = `domain ${domain}`;
    this.#connect = uri === undefined ? [] : ["-c", uri];
    this.#domain = domain;
    this.#commandTimeoutMs = commandTimeoutMs;
  }

  /** One QMP command. libvirt adds an id of its own and refuses one of ours. */
  async command(command: string, args: object | undefined, options: ExecuteOptions): Promise<unknown> {
    const { fd, timeoutMs = this.#commandTimeoutMs } = options;
    const line = JSON.stringify({ execute: command, arguments: args });
    const passed = fd === undefined ? [] : ["--pass-fds=3"]; // 3: where the child gets it
    const ended = await this.#run(
      ["qemu-monitor-command", `--domain=${this.#domain}`, ...passed, line],
      timeoutMs,
      fd,
    );
    if (ended.timedOut) throw this.#silence(command, timeoutMs);
    if (ended.status !== 0) throw this.failure(ended.stderr.trim() || `virsh ended with ${ended.status}`);
    const answer = parseMessage(ended.stdout);
    if (answer.kind === "answer") return answer.result;
    if (answer.kind === "refusal") throw refusal(command, answer.error);
    throw this.failure(`virsh said ${JSON.stringify(ended.stdout.slice(0, 80))}`);
  }

  /** The running domain, as virDomainRestore wants it. */
  async domainXml(): Promise<string> {
    const args = ["dumpxml", "--migratable", "--security-info", `--domain=${this.#domain}`];
    const ended = await this.#run(args, this.#commandTimeoutMs);
    if (ended.status === 0 && !ended.timedOut) return ended.stdout;
    throw this.failure(ended.stderr.trim() || "virsh dumpxml gave no answer");
  }

  /** What a command of virsh itself prints. */
  async print(command: string, timeoutMs: number): Promise<string> {
    return (await this.#run(command.split(" "), timeoutMs)).stdout;
  }

  failure(reason: string): MultifdError {
    // virsh says "error: " before each of its sentences, the first of them being the cause more often than not.
    const words = reason.replace(/^error: /gm, "").replaceAll("\n", "; ");
    const what = this.lossCode === "QEMU_FAILED" ? "libvirt failed on" : "cannot use libvirt's";
    return new MultifdError(this.lossCode, `${what} ${this.place}: ${words}`, {
      path: this.place,
      reason: words,
    });
  }

  stop(): void {
    this.#stop.abort();
  }

  async #run(args: readonly string[], timeoutMs: number, fd?: number): Promise<Ended> {
    try {
      return await runProgram("virsh", ["--quiet", ...this.#connect, ...args], {
        timeoutMs,
        fd,
        signal: this.#stop.signal,
      });
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      throw this.failure(code === "ENOENT" ? "there is no virsh; install libvirt's clients" : message);
    }
  }

  #silence(command: string, timeoutMs: number): MultifdError {
    const message = `libvirt did not bring ${this.place}'s answer to ${command} within ${timeoutMs} ms; QEMU hangs, or libvirt is busy with the domain`;
    const details = { path: this.place, awaited: command, timeoutMs, sent: true };
    return new MultifdError(this.lossCode, message, details);
  }
}

/** QEMU's process from libvirt's pid file; null unless that process is this domain's. */
async function findPid(virsh: Virsh, uri: string, timeoutMs: number): Promise<number | null> {
  const ask = (command: string): Promise<unknown> => virsh.command(command, undefined, { timeoutMs });
  const { name } = (await ask("query-name")) as { name?: string };
  const { UUID: uuid } = (await ask("query-uuid")) as { UUID: string };
  for (const directory of pidDirectories(new URL(uri))) {
    const pid = readPid(path.join(directory, `${name}.pid`));
    if (pid !== null && isQemu(pid) && runsWith(pid, uuid)) return pid;
  }
  return null;
}

/** Where the daemon of this host keeps its pid files: beside the socket that it listens on. The last one is for sessions. */
function pidDirectories({ pathname, searchParams }: URL): string[] {
  const ofUser = process.env.XDG_RUNTIME_DIR ?? `/run/user/${process.geteuid?.()}`;
  const usual = pathname === "/session" ? path.join(ofUser, "libvirt") : "/run/libvirt";
  const socket = searchParams.get("socket");
  const base = socket === null ? usual : path.dirname(socket);
  return [path.join(base, "qemu"), path.join(base, "qemu/run")];
}

function readPid(file: string): number | null {
  try {
    return Number.parseInt(readFileSync(file, "utf8"), 10) || null;
  } catch {
    return null;
  }
}

function runsWith(pid: number, uuid: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").includes(uuid);
  } catch {
    return false;
  }
}
