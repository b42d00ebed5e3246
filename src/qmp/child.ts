import { spawn } from "node:child_process";

export interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
  /** It did not end in time and was killed. */
  readonly timedOut: boolean;
}

export interface ChildOptions {
  readonly timeoutMs: number;
  /** A descriptor that the program gets as 3. */
  readonly fd?: number | undefined;
  /** Kills it; the call rejects. */
  readonly signal: AbortSignal;
}

/** Runs a program to its end, without a shell, its messages in English. Rejects with errors of node:child_process. */
export function runProgram(program: string, args: readonly string[], options: ChildOptions): Promise<Ended> {
  const { timeoutMs, fd, signal } = options;
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      stdio: ["ignore", "pipe", "pipe", ...(fd === undefined ? [] : [fd])],
      env: { ...process.env, LC_ALL: "C" },
      signal,
      killSignal: "SIGKILL",
    });
    const said = { stdout: "", stderr: "" };
    for (const name of ["stdout", "stderr"] as const) {
      child[name]?.setEncoding("utf8").on("data", (text: string) => {
        said[name] += text;
      });
    }
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill("SIGKILL");
    }, timeoutMs);
    child.on("error", (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.on("close", (status) => {
      clearTimeout(timer);
      resolve({ ...said, status, timedOut });
    });
  });
}
