import { appendFileSync } from "node:fs";

// A module that takes its time, as native code does on a busy machine, and then says that it is there.
Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300);
const diary = process.env.SLOW_LOADING;
if (diary !== undefined) appendFileSync(diary, "loaded\n");

export function feed(): void {}
