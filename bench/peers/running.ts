/**
 * Runs a program's whole work with a signal that SIGINT and SIGTERM abort, so that it can clean up: once is enough, as npm
 * sends a second SIGINT behind the terminal's. Tells a failure in one line, and ends with 128 + the signal's number, or 1.
 */
export async function running(work: (signal: AbortSignal) => Promise<void>): Promise<void> {
  const end = new AbortController();
  let status = 1;
  const stop = (name: NodeJS.Signals, number: number): void => {
    status = 128 + number;
    end.abort(new Error(`ended by ${name}; nothing is left`));
  };
  process.on("SIGINT", stop);
  process.on("SIGTERM", stop);
  try {
    await work(end.signal);
  } catch (error) {
    process.stderr.write(`bench: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = status;
  } finally {
    process.off("SIGINT", stop);
    process.off("SIGTERM", stop);
  }
}
