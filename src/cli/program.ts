import { Command, CommanderError } from "commander";
import { MultifdError, toFailure } from "../errors.ts";
import { VERSION } from "../version.ts";
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

type AddCommand = (program: Command, output: Output, status: ExitStatus) => void;

/** The commands, each registered by its own file, in the order of the help; a new one is one more line here. */
const COMMANDS: Readonly<Record<string, () => Promise<AddCommand>>> = {
  save: async () => (await import("./commands/save.ts")).addSaveCommand,
  restore: async () => (await import("./commands/restore.ts")).addRestoreCommand,
  snapshot: async () => (await import("./commands/snapshot.ts")).addSnapshotCommand,
  "managed-save": async () => (await import("./commands/managed-save.ts")).addManagedSaveCommand,
  start: async () => (await import("./commands/start.ts")).addStartCommand,
  "managed-list": async () => (await import("./commands/managed-list.ts")).addManagedListCommand,
  "managed-remove": async () => (await import("./commands/managed-remove.ts")).addManagedRemoveCommand,
  inspect: async () => (await import("./commands/inspect.ts")).addInspectCommand,
  verify: async () => (await import("./commands/verify.ts")).addVerifyCommand,
  convert: async () => (await import("./commands/convert.ts")).addConvertCommand,
  extract: async () => (await import("./commands/extract.ts")).addExtractCommand,
  diff: async () => (await import("./commands/diff.ts")).addDiffCommand,
  capabilities: async () => (await import("./commands/capabilities.ts")).addCapabilitiesCommand,
  recover: async () => (await import("./commands/recover.ts")).addRecoverCommand,
  demo: async () => (await import("./commands/demo.ts")).addDemoCommand,
  bench: async () => (await import("./commands/bench.ts")).addBenchCommand,
};

/** Tells which commands there are. */
const LISTS_COMMANDS = "capabilities";

/**
 * Runs one command line (without node and script) and answers the exit status; every failure has been told by
 * then. Commands import the library and the logger only when they run, so that help and mistakes are quick.
 */
export async function runCli(argv: readonly string[]): Promise<number> {
  const output = openOutput(argv);
  const status = { value: 0 };
  const program = await buildProgram(argv, output, status);
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

/** The one command that is asked for; all of them where they are to be listed, or where it is unknown. */
async function buildProgram(argv: readonly string[], output: Output, status: ExitStatus): Promise<Command> {
  const program = new Command("multifd-helper")
    .description("Saves and restores QEMU virtual machines over parallel multifd channels.")
    .version(VERSION, "-V, --version", "print the version")
    .helpOption("-h, --help", "print help")
    .helpCommand("help [command]", "print help for a command")
    .addHelpText("after", EXIT_STATUSES)
    .exitOverride()
    // What commander would print about a wrong command line is told by output.failed, in one line.
    .configureOutput({ outputError: () => undefined });
  const [name = ""] = argv;
  const alone = Object.hasOwn(COMMANDS, name) && name !== LISTS_COMMANDS;
  const asked = alone ? [COMMANDS[name] as () => Promise<AddCommand>] : Object.values(COMMANDS);
  for (const load of asked) (await load())(program, output, status);
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
