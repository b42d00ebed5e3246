import { setFlagsFromString } from "node:v8";

/** The release of Node.js it was measured with: what V8 makes of the flag is its own affair, and later ones do not know it. */
const MEASURED = /^v20\./;

let allowed = false;
let tuned = false;

/** Only a process that is all ours may say so: what V8 is told holds for the whole process. */
export function allowThreadTuning(): void {
  allowed = MEASURED.test(process.version);
}

/**
 * Has V8 wait longer before it optimises a function, so that it does it once, with what the function meets in earnest: a twentieth
 * of a restore's time is compiling the same functions again and again. Not before the threads have loaded: with other flags than it was
 * built with, V8 throws away the code that Node.js brings along, and each thread would take 40 ms longer to start.
 */
export function tuneThreads(): void {
  if (!allowed || tuned) return;
  tuned = true;
  setFlagsFromString("--interrupt-budget=300000");
}
