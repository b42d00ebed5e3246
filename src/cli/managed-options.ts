import type { Command } from "commander";
import { fromFailure } from "../errors.ts";
import type { ManagedOutcome, RunEvent } from "../index.ts";
import { exitStatusOf } from "./exit.ts";
import { valued } from "./options.ts";
import type { Output } from "./output.ts";
import { parseInteger, usage } from "./values.ts";

/** Which managed VM, or all of them. */
export interface ManagedFlags {
  readonly stateDir?: string;
  readonly all?: true;
  readonly jobs?: number;
}

const MAX_JOBS = 64;

export function addStateDirOption(command: Command): Command {
  return command.option(
    "--state-dir <dir>",
    "where images are (default: /var/lib/multifd-helper for root, else ~/.local/state/multifd-helper)",
  );
}

/** @param which VMs --all means, and what it does to them */
export function addManagedOptions(command: Command, which: string): Command {
  addStateDirOption(command.optionsGroup("Managed VMs:"));
  return command
    .option("--all", which)
    .addOption(
      valued("--jobs <n>", "with --all: how many VMs at once (default: 2)", parseInteger(1, MAX_JOBS)),
    );
}

/** @throws MultifdError USAGE unless there is either a name or --all */
export function checkWhich(name: string | undefined, { all, jobs }: ManagedFlags): void {
  if ((name === undefined) === (all === undefined)) throw usage("say which VM: its name, or --all");
  if (jobs !== undefined && !all) throw usage("--jobs makes no sense without --all");
}

/** A person sees which VM is being worked on. */
export function tellProgress(output: Output): (event: RunEvent, name: string) => void {
  return (event, name) => {
    if (event.event === "vm") output.tell("", `${name}: ${event.state}`);
  };
}

/**
 * The answer of --all: an object for programs, a line for each VM for people.
 * @returns the worst exit status
 */
export async function answerAll<T>(
  outcomes: readonly ManagedOutcome<T>[],
  output: Output,
  tell: (name: string, result: T) => { readonly facts: object; readonly sentence: string },
  nothing: string,
): Promise<number> {
  const vms = outcomes.map((outcome) => {
    const { name } = outcome;
    if (outcome.ok) return { ...tell(name, outcome.result), name, status: 0 };
    const { code, message, details } = outcome.failure;
    const status = exitStatusOf(fromFailure(outcome.failure));
    return {
      name,
      status,
      facts: { failed: { code, message, details } },
      sentence: `FAILED: ${message} [${code}]`,
    };
  });
  const lines = vms.map(({ name, sentence }) => `${name}: ${sentence}\n`);
  const value = { vms: vms.map(({ name, facts }) => ({ name, ...facts })) };
  await output.answer(value, lines.length === 0 ? `${nothing}\n` : lines.join(""));
  return Math.max(0, ...vms.map(({ status }) => status));
}
