import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import net from "node:net";
import path from "node:path";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";

/*
 * A manager as somebody writes one who has read docs/manager-contract.md and nothing else: it imports nothing of this
 * project, and knows only what that page says. If a test of it fails, the page or the program is wrong.
 */

/** How to start the helper: program and first arguments. */
export type HelperCommand = readonly [program: string, ...args: string[]];

export interface VmFiles {
  /** QEMU's QMP socket. */
  readonly qmp: string;
  readonly image: string;
  /** A directory that only we can write to. */
  readonly directory: string;
}

/** What came of it: both sides have to be right. */
export interface Outcome {
  readonly qemu: string;
  readonly exitStatus: number | null;
  /** The last event: `completed` or `failed`. */
  readonly last: Message;
}

type Message = Readonly<Record<string, unknown>>;

/** Sections 4 to 6: stop, set up, listen, migrate, and commit only what QEMU calls completed. */
export async function saveVm(
  helper: HelperCommand,
  vm: VmFiles,
  channels: number,
  cancel = false,
): Promise<Outcome> {
  const qmp = await Qmp.connect(vm.qmp);
  await qmp.execute("stop");
  await qmp.setUp(channels, "none");
  const socket = `unix:${path.join(vm.directory, "save.sock")}`;
  const options = ["--channels", `${channels}`, "--hold", "--die-with-parent", "--json"];
  const run = new HelperRun(helper, ["save", vm.image, "--listen", socket, ...options]);
  const { address } = await run.event("listening");
  await qmp.execute("migrate", { uri: address });
  if (cancel) await qmp.execute("migrate_cancel");
  const qemu = await qmp.migrationEnd();
  run.answer(qemu === "completed" ? "commit" : "abort");
  const ended = await run.ended();
  qmp.close();
  return { qemu, ...ended };
}

/** Section 7: ask the image what it needs, set up, listen, deliver, and wait for QEMU's own word. */
export async function restoreVm(helper: HelperCommand, vm: VmFiles): Promise<Outcome> {
  const { destination } = await inspectImage(helper, vm.image);
  const { multifdChannels, multifdCompression } = destination as Message;
  const qmp = await Qmp.connect(vm.qmp);
  await qmp.setUp(Number(multifdChannels), String(multifdCompression));
  const uri = `unix:${path.join(vm.directory, "restore.sock")}`;
  await qmp.execute("migrate-incoming", { uri });
  const checks = [
    "--expect",
    `channels=${multifdChannels}`,
    "--verify",
    "first",
    "--die-with-parent",
    "--json",
  ];
  const run = new HelperRun(helper, ["restore", vm.image, "--connect", uri, ...checks]);
  const ended = await run.ended();
  const qemu = ended.exitStatus === 0 ? await qmp.migrationEnd() : "not asked";
  qmp.close();
  return { qemu, ...ended };
}

async function inspectImage(helper: HelperCommand, image: string): Promise<Message> {
  const run = new HelperRun(helper, ["inspect", image, "--json"]);
  const { exitStatus, last } = await run.ended();
  if (exitStatus !== 0) throw new Error(`${image}: ${String(last.message)}`);
  return last;
}

/** A helper that runs; its lines on stdout are JSON objects. */
class HelperRun {
  readonly #child: ChildProcess;
  readonly #messages: Messages;
  readonly #exit: Promise<number | null>;

  constructor([program, ...first]: HelperCommand, args: readonly string[]) {
    this.#child = spawn(program, [...first, ...args], { stdio: ["pipe", "pipe", "inherit"] });
    this.#messages = new Messages(this.#child.stdout as Readable);
    this.#exit = once(this.#child, "close").then(([status]) => status as number | null);
  }

  event(name: string): Promise<Message> {
    return this.#messages.find((message) => message.event === name);
  }

  answer(line: "commit" | "abort"): void {
    (this.#child.stdin as Writable).end(`${line}\n`);
  }

  async ended(): Promise<{ exitStatus: number | null; last: Message }> {
    const exitStatus = await this.#exit;
    return { exitStatus, last: this.#messages.all.at(-1) ?? {} };
  }
}

/** QEMU's monitor: newline-delimited JSON, too. */
class Qmp {
  readonly #socket: net.Socket;
  readonly #messages: Messages;
  #commands = 0;

  private constructor(socket: net.Socket) {
    this.#socket = socket;
    this.#messages = new Messages(socket);
  }

  static async connect(file: string): Promise<Qmp> {
    const socket = net.connect(file);
    await once(socket, "connect");
    const qmp = new Qmp(socket);
    await qmp.execute("qmp_capabilities");
    return qmp;
  }

  async execute(command: string, args: object = {}): Promise<unknown> {
    const id = ++this.#commands;
    this.#socket.write(JSON.stringify({ execute: command, arguments: args, id }));
    const answer = await this.#messages.find((message) => message.id === id);
    if ("error" in answer) throw new Error(`${command}: ${JSON.stringify(answer.error)}`);
    return answer.return;
  }

  async setUp(channels: number, compression: string): Promise<void> {
    const states = { multifd: channels > 0, events: true, "return-path": false };
    const capabilities = Object.entries(states).map(([capability, state]) => ({ capability, state }));
    await this.execute("migrate-set-capabilities", { capabilities });
    const multifd = { "multifd-channels": channels, "multifd-compression": compression };
    await this.execute("migrate-set-parameters", { "max-bandwidth": 0, ...(channels > 0 ? multifd : {}) });
  }

  /** Waits for the MIGRATION event that ends it. */
  async migrationEnd(): Promise<string> {
    const statusOf = ({ event, data }: Message): string =>
      event === "MIGRATION" ? String((data as Message).status) : "";
    const end = await this.#messages.find((message) =>
      ["completed", "failed", "cancelled"].includes(statusOf(message)),
    );
    return statusOf(end);
  }

  close(): void {
    this.#socket.destroy();
  }
}

/** JSON objects, one a line, that have come and that will come. */
class Messages {
  readonly all: Message[] = [];
  #over = false;
  #wake: (() => void)[] = [];

  constructor(stream: Readable) {
    const lines = createInterface(stream);
    lines.on("line", (line) => {
      this.all.push(JSON.parse(line) as Message);
      this.#wakeAll();
    });
    lines.on("close", () => {
      this.#over = true;
      this.#wakeAll();
    });
  }

  async find(wanted: (message: Message) => boolean): Promise<Message> {
    for (;;) {
      const found = this.all.find(wanted);
      if (found !== undefined) return found;
      if (this.#over) throw new Error(`no such message came: ${JSON.stringify(this.all)}`);
      await new Promise<void>((resolve) => this.#wake.push(resolve));
    }
  }

  #wakeAll(): void {
    for (const wake of this.#wake.splice(0)) wake();
  }
}
