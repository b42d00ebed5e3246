import fs from "node:fs";
import { type Logger, pino } from "pino";
import { MultifdError } from "../errors.ts";
import { errnoOf, type LOG_LEVELS } from "./values.ts";

const STDERR = 2;
const { O_WRONLY, O_APPEND, O_CREAT, O_NONBLOCK } = fs.constants;
/** Not blocking: opening a FIFO that nobody reads would wait for ever, deaf to signals. */
const APPEND = O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK;

export interface LogFlags {
  readonly logLevel?: (typeof LOG_LEVELS)[number];
  readonly logFile?: string;
}

/**
 * Log lines are written synchronously, so that the last words before an exit are never lost.
 * `beforeLine` is called before a line goes to stderr, where a progress bar may be in the way.
 */
export function openLog({ logLevel = "warn", logFile }: LogFlags, beforeLine: () => void): Logger {
  const destination = openDestination(logFile);
  // A log that cannot be written (its disk is full, its reader gone) is no reason to lose the image.
  destination.on("error", () => undefined);
  const lines = {
    write(line: string): void {
      if (logFile === undefined) beforeLine();
      destination.write(line);
    },
  };
  return pino(
    { level: logLevel, base: { pid: process.pid }, timestamp: pino.stdTimeFunctions.isoTime },
    lines,
  );
}

function openDestination(logFile: string | undefined): ReturnType<typeof pino.destination> {
  if (logFile === undefined) return pino.destination({ dest: STDERR, sync: true });
  try {
    return pino.destination({ dest: fs.openSync(logFile, APPEND, 0o600), sync: true });
  } catch (error) {
    const errno = errnoOf(error);
    throw new MultifdError("IO", `the log file ${logFile} cannot be opened: ${errno}`, {
      path: logFile,
      errno,
    });
  }
}
