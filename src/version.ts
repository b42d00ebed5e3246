import { createRequire } from "node:module";

// By the package's own name: the relative path would differ between the sources and the build.
const manifest = createRequire(import.meta.url)("multifd-helper/package.json") as { version: string };

export const VERSION: string = manifest.version;

/** Version of docs/manager-contract.md that this program keeps. Grows only when something a manager relies on goes away. */
export const CONTRACT_VERSION = 1;
