import { Command, CommanderError } from "commander";
import { MultifdError, toFailure } from "../errors.ts";
import { VERSION } from "../version.ts";
import { addBenchCommand } from "./commands/bench.ts";
import { addCapabilitiesCommand } from "./commands/capabilities.ts";
import { addConvertCommand } from "./commands/convert.ts";
import { addDemoCommand } from "./commands/demo.ts";
import { addDiffCommand } from "./commands/diff.ts";
import { addExtractCommand } from "./commands/extract.ts";
import { addInspectCommand } from "./commands/inspect.ts";
import { addManagedListCommand } from "./commands/managed-list.ts";
import { addManagedRemoveCommand } from "./commands/managed-remove.ts";
import { addManagedSaveCommand } from "./commands/managed-save.ts";
import { addRecoverCommand } from "./commands/recover.ts";
import { addRestoreCommand } from "./commands/restore.ts";
import { addSaveCommand } from "./commands/save.ts";
import { addSnapshotCommand } from "./commands/snapshot.ts";
import { addStartCommand } from "./commands/start.ts";
import { addVerifyCommand } from "./commands/verify.ts";
import { type ExitStatus, exitStatusOf } from "./exit.ts";
import { type Output, openOutput } from "./output.ts";

const EXIT_STATUSES = `
Exit status:
  0  done
  1  internal error
  2  the command line makes no sense
  3  the peer: a channel closed early, broke the protocol or is missing; or the manager aborted
  4  the image: not ours, not sealed, damaged, or not what was expected
  5  input or output: no space, read-only, O_DIRECT refused
  6  timeout
  7  QEMU or QMP refused
  128+n  cancelled by signal n, after cleaning up

Sizes take K, M, G or T (binary) or 0x; addresses are unix:PATH, tcp:HOST:PORT or, to listen, fd:N.`;

/**
 * Runs one command line (without node and script) and answers the exit status; every failure has been told by
 * then. Commands import the library and the logger only when they run, so that help and mistakes are quick.
 */
export async function runCli(argv: readonly string[]): Promise<number> {
  const output = openOutput(argv);
  const status = { value: 0 };
  const program = buildProgram(output, status);
  try {
    await program.parseAsync(argv, { from: "user" });
    return status.value;
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return 0;
    const told = error instanceof CommanderError ? usageError(error, program, argv) : error;
    output.failed(toFailure(told));
    return exitStatusOf(told);
  }
}

/** The commands, each registered by its own file; a new one is one more line here. */
function buildProgram(output: Output, status: ExitStatus): Command {
  const program = new Command("multifd-helper")
    .description("Saves and restores QEMU virtual machines over parallel multifd channels.")
    .version(VERSION, "-V, --version", "print the version")
    .helpOption("-h, --help", "print help")
    .helpCommand("help [command]", "print help for a command")
    .addHelpText("after", EXIT_STATUSES)
    .exitOverride()
    // What commander would print about a wrong command line is told by output.failed, in one line.
    .configureOutput({ outputError: () => undefined });
  addSaveCommand(program, output);
  addRestoreCommand(program, output, status);
  addSnapshotCommand(program, output);
  addManagedSaveCommand(program, output, status);
  addStartCommand(program, output, status);
  addManagedListCommand(program, output);
  addManagedRemoveCommand(program, output);
  addInspectCommand(program, output);
  addVerifyCommand(program, output);
  addConvertCommand(program, output);
  addExtractCommand(program, output);
  addDiffCommand(program, output);
  addCapabilitiesCommand(program, output);
  addRecoverCommand(program, output);
  addDemoCommand(program, output);
  addBenchCommand(program, output);
  return program;
}

/** Commander's "error: option … (Did you mean …?)" as our one sentence. */
function usageError(error: CommanderError, program: Command, argv: readonly string[]): MultifdError {
  const command = program.commands.find((candidate) => candidate.name() === argv[0]);
  const help = command === undefined ? "multifd-helper --help" : `multifd-helper ${command.name()} --help`;
  return new MultifdError("USAGE", `${mistakeOf(error, command ?? program)}; see ${help}`);
}

function mistakeOf(error: CommanderError, command: Command): string {
  // It has printed its help in answer to a missing command, or to `help` for an unknown one.
  if (error.code === "commander.help") return "a command is missing or unknown";
  const text = error.message.replace(/^error: /, "").replace(/\s*\n\s*/g, " ");
  const flag = /^unknown option '(--[\w-]+)=/.exec(text)?.[1];
  if (flag !== undefined && command.options.some(({ long }) => long === flag)) {
    return `option '${flag}' takes no value`;
  }
  // "too many arguments for 'save'. Expected 1 argument but got 2."
  return text.replace(". Expected", ": expected").replace(/\.$/, "");
}
