const PROFILE = "([profiles](profiles.md))";
const CORES = `Bound by two cores, which are busy to the last ${PROFILE}: QEMU's copying out of sockets, with a fault for each page of its empty RAM, takes 1.6 s of processor time, the helper 1.0 s for streams and 1.3 s for pages.`;
const ONE = `One connection holds 512 KiB: QEMU empties it while we read, and then one waits for the other, with the cores 73 to 77 % busy ${PROFILE}.`;

/** Written by hand, by a target's name: what bounds it, where it does not hold. */
export const REASONS: Readonly<Record<string, string>> = {
  "save-vs-direct-io":
    "What is left is the disk: the ratio moves with it; see the helper beside fio, and the C program below it.",
  "save-vs-exec-cat":
    'It fills the page cache and flushes nothing; see "unsynced" for what that leaves. The cache takes bytes as fast as memory is copied.',
  "save-vs-file":
    "As with `exec:cat`, without the pipe: the bytes are copied once, and none of them is on disk when QEMU calls it completed.",
  "save-1-channel": `One connection holds 208 KiB: QEMU fills it while we write, and then one waits for the other, with the cores 63 % busy ${PROFILE}. Only QEMU could make its buffer larger.`,
  "save-64-channels":
    "64 small rings of 512 and 256 KiB blocks: two to four times as many turns and writes, 0.25 s of processor time per GiB more. Larger blocks for all would take 180 MiB of memory.",
  "save-mapped-ram": `0.2 s more of the helper's processor time per GiB than a stream takes, on cores that are 92 % busy ${PROFILE}: a checksum and an entry for each page in JavaScript, and V8 compiling that.`,
  "restore-stream-1": ONE,
  "restore-mapped-ram-1": ONE,
  "restore-stream-2": CORES,
  "restore-mapped-ram-2": CORES,
  "restore-stream-4": CORES,
  "restore-mapped-ram-4": CORES,
  "restore-stream-16": CORES,
  "restore-mapped-ram-16": CORES,
  "cpu-vs-c": `Node.js, two threads and their code take 0.25 s to start, whatever the guest's size; beyond that a stream costs 0.5 s per GiB, of which sockets, disk and checksums, which C pays as well, are 0.23 s and the rest is JavaScript, its event loop and V8's compiler ${PROFILE}.`,
  "cpu-vs-c-crc32":
    "The same; libdeflate and the helper sum equally fast, which is 0.05 s per GiB of either's time.",
  "rss-growth-stream":
    "What V8 has not collected yet: 106 MiB after 1 GiB of a generator's, 113 after 8, 129 after 32, 133 after 66. Kept are 4 bytes for each MiB.",
  start:
    "Of some 60 to 80 ms more than `node -e 0` a third is reading and compiling one file of 790 KB, a third commander and the parts of Node.js that it and the listener need, and the rest the image's first accesses and the socket. With NODE_EXTRA_CA_CERTS set, Node.js itself takes 30 to 40 ms longer, and the ratio is 1.9.",
  "tail-mapped-ram":
    "The pages' checksums are joined to those of ranges when all have come, heads and bitmaps are written then, and three flushes follow each other, so that no crash leaves a file that looks whole.",
};
