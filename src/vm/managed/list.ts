import fs from "node:fs";
import { resolve } from "node:path";
import { inspect } from "../../control/inspect.ts";
import { MultifdError, toFailure } from "../../errors.ts";
import { partialName, removePartial } from "../../io/image-target/replacement.ts";
import { defaultStateDirectory, type ManagedPlace, managedNames, managedPlace } from "./directory.ts";
import { forgetImage } from "./forget.ts";
import { withManagedLock } from "./lock.ts";

/**
 * ready: the next start restores it. resuming: a start was killed when it let this VM run, or an instant restore let it run, so
 * that it may have run, or has.
 * unfinished: a save that goes on, or was killed. damaged: it is no image, or not a whole one.
 */
export type ManagedState = "ready" | "resuming" | "unfinished" | "damaged";

export interface ManagedImage {
  readonly name: string;
  readonly state: ManagedState;
  readonly path: string;
  /** Of the file. */
  readonly bytes: number;
  /** ISO time of the image; null where it does not tell. */
  readonly created: string | null;
  /** null where it does not tell. */
  readonly machine: string | null;
  /** Why it is damaged; null otherwise. */
  readonly problem: string | null;
}

/** What there is, by name; the images' data are not read. Throws IO. */
export async function managedList(stateDirectory: string = defaultStateDirectory()): Promise<ManagedImage[]> {
  const directory = resolve(stateDirectory);
  const found: ManagedImage[] = [];
  const { saved, unfinished } = managedNames(directory);
  for (const name of [...new Set([...saved, ...unfinished])].sort()) {
    const image = await describe(managedPlace(name, directory));
    if (image !== null) found.push(image);
  }
  return found;
}

/** null: it has gone meanwhile. */
async function describe({ name, image, resuming }: ManagedPlace): Promise<ManagedImage | null> {
  const unfinished = partialName(image);
  const path = [resuming, image, unfinished].find((file) => fs.existsSync(file));
  if (path === undefined) return null;
  const bytes = fs.statSync(path, { throwIfNoEntry: false })?.size ?? 0;
  const entry = { name, path, bytes, created: null, machine: null, problem: null };
  if (path === unfinished) return { ...entry, state: "unfinished" };
  try {
    const report = await inspect({ image: path });
    const { sealed, created, metadata } = report;
    const mayHaveRun = path === resuming || (report.format === "mapped-ram" && report.resumed !== null);
    const state = !sealed ? "unfinished" : mayHaveRun ? "resuming" : "ready";
    return { ...entry, state, created, machine: metadata?.machine ?? null };
  } catch (error) {
    return { ...entry, state: path === resuming ? "resuming" : "damaged", problem: toFailure(error).message };
  }
}

export interface ManagedRemoveOptions {
  readonly name: string;
  /** Default: /var/lib/multifd-helper for root, $XDG_STATE_HOME/multifd-helper for everybody else. */
  readonly stateDirectory?: string | undefined;
}

/**
 * Removes a VM's managed image, whatever state it is in.
 * @returns the files that are gone
 * @throws MultifdError USAGE, TARGET_BUSY (somebody works on this name, or a VM still needs the image), MANAGED_STATE (there is
 *   none), IO
 */
export async function managedRemove({
  name,
  stateDirectory,
}: ManagedRemoveOptions): Promise<readonly string[]> {
  const place = managedPlace(name, stateDirectory);
  return await withManagedLock(place, async () => {
    const { directory, image, resuming } = place;
    const files = [image, resuming, partialName(image)].filter((file) => fs.existsSync(file));
    if (files.length === 0) {
      throw new MultifdError("MANAGED_STATE", `${name} has no managed image in ${directory}`, {
        path: image,
      });
    }
    removePartial(image);
    await forgetImage(place);
    return files;
  });
}
