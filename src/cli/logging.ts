import fs from "node:fs";
import { createRequire } from "node:module";
import type * as Pino from "pino";
import type { Log } from "../control/options.ts";
import { MultifdError } from "../errors.ts";
import { Lazy } from "../lazy.ts";
import { errnoOf, LOG_LEVELS } from "./values.ts";

const STDERR = 2;
const { O_WRONLY, O_APPEND, O_CREAT, O_NONBLOCK } = fs.constants;
/** Not blocking: opening a FIFO that nobody reads would wait for ever, deaf to signals. */
const APPEND = O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK;

export interface LogFlags {
  readonly logLevel?: (typeof LOG_LEVELS)[number];
  readonly logFile?: string;
}

const require = createRequire(import.meta.url);

/**
 * Log lines are written synchronously, so that the last words before an exit are never lost. The logger is loaded when
 * the first line is to be written: most runs have none, and a manager waits for `listening`.
 * `beforeLine` is called before a line goes to stderr, where a progress bar may be in the way.
 */
export function openLog({ logLevel = "warn", logFile }: LogFlags, beforeLine: () => void): Log {
  const fd = logFile === undefined ? STDERR : openFile(logFile);
  const logger = new Lazy(() =>
    makeLogger(fd, logLevel, logFile === undefined ? beforeLine : () => undefined),
  );
  const line = (level: keyof Log): Log[typeof level] => {
    if (LOG_LEVELS.indexOf(level) < LOG_LEVELS.indexOf(logLevel)) return () => undefined;
    return (fields, message) => logger.get()[level](fields, message);
  };
  return { debug: line("debug"), info: line("info"), warn: line("warn"), error: line("error") };
}

function makeLogger(fd: number, level: string, beforeLine: () => void): Pino.Logger {
  const { pino } = require("pino") as typeof Pino;
  const destination = pino.destination({ dest: fd, sync: true });
  // A log that cannot be written (its disk is full, its reader gone) is no reason to lose the image.
  destination.on("error", () => undefined);
  const lines = {
    write(line: string): void {
      beforeLine();
      destination.write(line);
    },
  };
  return pino({ level, base: { pid: process.pid }, timestamp: pino.stdTimeFunctions.isoTime }, lines);
}

function openFile(logFile: string): number {
  try {
    return fs.openSync(logFile, APPEND, 0o600);
  } catch (error) {
    const errno = errnoOf(error);
    throw new MultifdError("IO", `the log file ${logFile} cannot be opened: ${errno}`, {
      path: logFile,
      errno,
    });
  }
}
