import "../../../src/io/libc.ts";

/** Names the worker's code; a pool that is only opened and closed never calls it. */
export function nothing(): void {}
