import { fileURLToPath } from "node:url";

/*
 * What is started as a process or a thread of its own. The build makes one file of each: to find and read a hundred modules takes
 * Node.js 20 longer than to run them, and a save and a restore wait for their threads.
 */

/** dist/bundles/ for code that runs from there, else dist/: there the same lies in modules of its own, for tests that reach into it. */
const root = /^(.*\/dist\/(?:bundles\/)?)(?:src|workers)\//.exec(import.meta.url)?.[1] ?? import.meta.url;

/** @param name of its source, without the ending; rolldown.config.ts lists all */
export function entryPoint(name: string): URL {
  return new URL(`${name}.js`, root);
}

/** The command line as it ships, for what starts it as a process of its own. */
export const MAIN: string = fileURLToPath(
  new URL("src/cli/main.js", root.endsWith("/bundles/") ? root : `${root}bundles/`),
);
