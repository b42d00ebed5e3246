import { createRequire } from "node:module";

const require = createRequire(import.meta.url);

/**
 * koffi, by its native part alone where that is found. The JavaScript in front of it is there for what we do not use, and it
 * loads node:https, with which koffi would fetch what it lacks: 8 ms of processor time when a command starts, and 5 in
 * each worker thread.
 */
function loadKoffi(): typeof import("koffi") {
  for (const libc of ["linux", "musl"]) {
    try {
      return require(`koffi/build/koffi/${libc}_${process.arch}/koffi.node`);
    } catch {
      // Made for another libc or processor: koffi itself knows what to say when there is none at all.
    }
  }
  return require("koffi");
}

export const koffi: typeof import("koffi") = loadKoffi();
