/** Written by hand, by a target's name: why it does not hold, or what else has to be known about its figure. */
export const REASONS: Readonly<Record<string, string>> = {
  "save-vs-c-crc32":
    "The C program sums with the system's zlib, the helper with the one in Node.js, which may be more than twice as fast.",
};
