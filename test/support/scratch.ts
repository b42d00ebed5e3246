import { lstat, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach } from "vitest";

/** A directory of its own for each test of a file, gone when the test ends. */
export interface Scratch {
  readonly directory: string;
  /** Path of a name in it. */
  file(name: string): string;
  /** What is in it, hidden files included, sorted. */
  names(): Promise<string[]>;
  /** Permission bits of a name. */
  mode(name: string): Promise<number>;
  read(name: string): Promise<Buffer>;
}

export function useScratch(): Scratch {
  let directory = "";
  beforeEach(async () => {
    directory = await mkdtemp(path.join(tmpdir(), "mfd-"));
  });
  afterEach(() => rm(directory, { recursive: true, force: true }));
  const file = (name: string): string => path.join(directory, name);
  return {
    get directory() {
      return directory;
    },
    file,
    names: async () => (await readdir(directory)).sort(),
    mode: async (name) => (await lstat(file(name))).mode & 0o7777,
    read: (name) => readFile(file(name)),
  };
}
