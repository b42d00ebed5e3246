import { createRequire } from "node:module";

const require = createRequire(import.meta.url);

/** Piscina, when it is used: neither a command without threads nor whoever waits for `listening` should wait for 15 modules more. */
export function loadPiscina(): typeof import("piscina") {
  return require("piscina") as typeof import("piscina");
}
