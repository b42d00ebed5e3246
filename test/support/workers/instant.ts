import { MultifdError, restoreInstant } from "../../../src/index.ts";

/*
 * An instant restore as a process of its own, which can be killed: its options are its argument. Each event is a line, and so is
 * its failure.
 */

const tell = (line: object): void => void process.stdout.write(`${JSON.stringify(line)}\n`);

try {
  await restoreInstant({ ...JSON.parse(process.argv[2] as string), onEvent: tell });
} catch (error) {
  if (!(error instanceof MultifdError)) throw error;
  tell({ event: "failed", code: error.code, message: error.message, details: error.details });
}
