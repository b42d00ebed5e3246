import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { entryPoint } from "../../entry-points.ts";
import { MultifdError } from "../../errors.ts";

const PROGRAM = fileURLToPath(entryPoint("src/vm/guard/guardian-main"));
const READY_MS = 20_000;

/** What a guardian is told. */
export const WORDS = { letRun: "let run", dismissed: "dismissed", left: "left" } as const;

/**
 * What is to be done when this process is gone: put the VM of a journal right, or end a QEMU that nobody owns yet, which was
 * started with a directory of ours for its monitor ("qmp").
 */
export type Duty = readonly ["recover", journal: string] | readonly ["kill", pid: string, directory: string];

/**
 * A process that outlives a SIGKILL of this one. It holds the end of a pipe; when that breaks without a word, it
 * does its duty. A monitor that was ours is free then.
 */
export class Guardian {
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  /** When this resolves, it watches. Throws INTERNAL. */
  static async start(duty: Duty): Promise<Guardian> {
    // Detached: a Ctrl-C at the terminal is for us, not for it.
    const child = spawn(process.execPath, [PROGRAM, ...duty], {
      stdio: ["pipe", "pipe", "inherit"],
      detached: true,
    });
    child.stdin?.on("error", () => undefined);
    const guardian = new Guardian(child);
    const problem = await readiness(child);
    if (problem === null) return guardian;
    child.kill("SIGKILL");
    const text = `cannot start the guardian process of the VM: ${problem}`;
    throw new MultifdError("INTERNAL", text, { program: PROGRAM });
  }

  /** It is to do its duty now; it goes on by itself. */
  release(): void {
    this.#child.stdin?.destroy();
    this.#child.stdout?.destroy();
    this.#child.unref();
  }

  /**
   * The VM is about to be let run: from when this resolves, its QEMU is ended only if it says that it does not run. A
   * kill between this and `cont` must leave no QEMU, one behind it must not cost a VM that runs.
   */
  async letRun(): Promise<void> {
    await this.#say(WORDS.letRun);
  }

  /** There is nothing left to guard, and our directory of a QEMU goes, whatever becomes of us. Fine to call twice. */
  async dismiss(): Promise<void> {
    await this.#end(WORDS.dismissed);
  }

  /** The same, but a QEMU keeps the directory with its private monitor: through that somebody can go on. */
  async leave(): Promise<void> {
    await this.#end(WORDS.left);
  }

  async #end(word: string): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = once(this.#child, "exit");
    await this.#say(word);
    this.#child.stdin?.end();
    await exited;
  }

  /** Resolves when the kernel has the word; also when somebody has killed the guardian, which must not stop us. */
  async #say(word: string): Promise<void> {
    await new Promise((resolve) => this.#child.stdin?.write(`${word}\n`, resolve));
  }
}

/** null: it said that it is ready. */
function readiness(child: ChildProcess): Promise<string | null> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve("it does not answer"), READY_MS);
    const settle = (problem: string | null): void => {
      clearTimeout(timer);
      resolve(problem);
    };
    child.stdout?.once("data", () => settle(null));
    child.once("error", (error) => settle(error.message));
    child.once("exit", () => settle("it ended"));
  });
}
