import { existsSync } from "node:fs";
import { dirname, join } from "node:path";

/** The folder of package.json, from wherever the built tests run. */
export function findRepoRoot(start: string = import.meta.dirname): string {
  let folder = start;
  while (!existsSync(join(folder, "package.json"))) {
    const parent = dirname(folder);
    if (parent === folder) throw new Error(`no package.json above ${start}`);
    folder = parent;
  }
  return folder;
}
