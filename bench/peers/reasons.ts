const CORES =
  "Two cores: the helper's 1.2 to 2.4 s of processor time and QEMU's 1.2 s keep them busy; QEMU takes its pages out of sockets with one fault for each 4 KiB.";
const TURNS =
  "One connection: QEMU's one thread and ours take turns, with no more than 512 KiB between them, while the cores are half idle.";

/** Written by hand, by a target's name: what bounds it, where it does not hold. */
export const REASONS: Readonly<Record<string, string>> = {
  "save-vs-direct-io":
    "What is left is the disk: in six series of 3 to 9 rounds the ratio was 1.14 to 1.30, as the disk wrote slower or faster; the helper is at 0.8 of what fio writes, and the C program below it.",
  "save-vs-exec-cat":
    'It fills the page cache and flushes nothing; see "unsynced" for what that leaves. The cache takes bytes as fast as memory is copied.',
  "save-vs-file":
    "As with `exec:cat`, without the pipe: the bytes are copied once, and none of them is on disk when QEMU calls it completed.",
  "save-1-channel":
    "One connection holds 208 KiB: QEMU fills it while we write, and then one waits for the other. Only QEMU could make its buffer larger.",
  "save-64-channels":
    "64 small rings of 256 KiB blocks: four times as many turns and writes, 0.19 s of processor time per GiB more.",
  "save-mapped-ram":
    "A checksum and an entry for each page, in JavaScript: 0.45 s of processor time per GiB where a stream takes 0.32, on two cores that QEMU needs as well.",
  "restore-stream-1": TURNS,
  "restore-stream-2": CORES,
  "restore-stream-4":
    "Bound by two cores: helper (1.2 s) and QEMU (1.2 s) take 86 % of them, QEMU alone 1.9 s. The first 0.19 s, Node.js and its modules, use one core only.",
  "restore-stream-16": CORES,
  "restore-mapped-ram-1": TURNS,
  "restore-mapped-ram-2": CORES,
  "restore-mapped-ram-4":
    "As with streams, and 0.4 s more of the helper's processor time: packets are made, and each 64 KiB has a checksum of its own.",
  "restore-mapped-ram-16": CORES,
  "cpu-vs-c":
    "Node.js and two threads take 0.45 s to start, whatever the guest's size; beyond that a stream costs 0.32 s per GiB, mostly turns of the event loop and system calls.",
  "cpu-vs-c-crc32":
    "The same; libdeflate and the helper sum equally fast, which is 0.045 s per GiB of either's time.",
  start:
    "66 ES modules, which Node.js 20 reads one by one, commander, and the image's first accesses. Bundled into one file it took a tenth less.",
  "tail-mapped-ram":
    "The pages' checksums are joined to those of ranges when all have come (4 ms per GiB), and heads and bitmaps are written then.",
};
