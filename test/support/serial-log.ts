import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

export interface WaitOptions {
  /** The first line looked at; 0 if absent. */
  readonly from?: number;
  /** 60 s if absent. */
  readonly timeoutMs?: number;
}

/** What a guest wrote to its serial port, which QEMU appends to a file: nothing is lost while nobody reads. */
export class SerialLog {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  /** QEMU's arguments that make this file the first serial port, ISA's COM1. */
  get args(): string[] {
    const path = this.path.replaceAll(",", ",,");
    return ["-chardev", `file,id=serial-log,path=${path}`, "-serial", "chardev:serial-log"];
  }

  /** All of it, an unfinished line included; empty before QEMU made the file. */
  async text(): Promise<string> {
    return await readFile(this.path, "latin1").catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return "";
      throw error;
    });
  }

  /** The finished lines, without their ends. */
  async lines(): Promise<string[]> {
    return linesOf(await this.text());
  }

  /** The first finished line that matches, as soon as there is one. */
  async waitForLine(
    pattern: RegExp,
    { from = 0, timeoutMs = 60_000 }: WaitOptions = {},
  ): Promise<RegExpExecArray> {
    const deadline = Date.now() + timeoutMs;
    for (;;) {
      const lines = await this.lines();
      for (const line of lines.slice(from)) {
        const match = pattern.exec(line);
        if (match !== null) return match;
      }
      if (Date.now() > deadline) {
        throw new Error(`no ${pattern} in ${timeoutMs} ms; last lines: ${lines.slice(-5).join(" | ")}`);
      }
      await sleep(20);
    }
  }
}

/** The finished lines of a text, without their ends. */
export function linesOf(text: string): string[] {
  return text.split(/\r?\n/).slice(0, -1);
}
