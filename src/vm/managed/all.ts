import { cancelled } from "../../control/cancellation.ts";
import type { CompletedEvent, RunEvent } from "../../control/events.ts";
import { type Failure, toFailure } from "../../errors.ts";
import { managedNames, managedPlace, openStateDirectory } from "./directory.ts";
import { type ManagedSaveOptions, managedSave } from "./managed-save.ts";
import { isListening } from "./running.ts";
import { type ManagedStartOptions, managedStart, type StartedVm } from "./start.ts";

interface AllOptions {
  /** How many VMs at once. Default 2. */
  readonly jobs?: number | undefined;
  /** An event and the VM that it is about. */
  readonly onEvent?: ((event: RunEvent, name: string) => void) | undefined;
}

export type ManagedSaveAllOptions = Omit<ManagedSaveOptions, "name" | "vm" | "onEvent"> & AllOptions;
export type ManagedStartAllOptions = Omit<
  ManagedStartOptions,
  "name" | "command" | "discard" | "detached" | "stdoutToStderr" | "beforeRun" | "onEvent"
> &
  AllOptions;

/** What became of one VM: its result, or why there is none. */
export type ManagedOutcome<T> =
  | { readonly name: string; readonly ok: true; readonly result: T }
  | { readonly name: string; readonly ok: false; readonly failure: Failure };

const DEFAULT_JOBS = 2;

/**
 * Saves every VM that start has started and that runs. One that fails does not stop the others, and runs on.
 * @throws MultifdError IO (the state directory)
 */
export async function managedSaveAll(
  options: ManagedSaveAllOptions,
): Promise<ManagedOutcome<CompletedEvent>[]> {
  const directory = openStateDirectory(options.stateDirectory);
  const running: string[] = [];
  for (const name of managedNames(directory).recorded) {
    if (await isListening(managedPlace(name, directory).qmp)) running.push(name);
  }
  return await each(running, options, (name, onEvent) => managedSave({ ...options, name, onEvent }));
}

/**
 * Starts every VM that start has started before and that has a managed image, in whatever state that is. One that fails
 * does not stop the others.
 * @throws MultifdError IO (the state directory)
 */
export async function managedStartAll(options: ManagedStartAllOptions): Promise<ManagedOutcome<StartedVm>[]> {
  const { saved } = managedNames(openStateDirectory(options.stateDirectory));
  const how = { detached: true, stdoutToStderr: false };
  return await each(saved, options, (name, onEvent) => managedStart({ ...options, ...how, name, onEvent }));
}

async function each<T>(
  names: readonly string[],
  { jobs = DEFAULT_JOBS, onEvent, signal }: AllOptions & { readonly signal?: AbortSignal | undefined },
  work: (name: string, tell: (event: RunEvent) => void) => Promise<T>,
): Promise<ManagedOutcome<T>[]> {
  const outcomes: ManagedOutcome<T>[] = [];
  const left = names.entries();
  const worker = async (): Promise<void> => {
    for (const [index, name] of left) {
      try {
        if (signal?.aborted) throw cancelled(signal);
        const result = await work(name, (event) => onEvent?.(event, name));
        outcomes[index] = { name, ok: true, result };
      } catch (error) {
        outcomes[index] = { name, ok: false, failure: toFailure(error) };
      }
    }
  };
  await Promise.all(Array.from({ length: jobs }, worker));
  return outcomes;
}
