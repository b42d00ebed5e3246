import fs from "node:fs";
import { MultifdError } from "../../errors.ts";

/** Throws TARGET_REFUSED for what cannot hold an image. */
export function kindOfStat(stat: fs.Stats, name: string): "regular" | "block" {
  if (stat.isFile()) return "regular";
  if (stat.isBlockDevice()) return "block";
  const what = stat.isDirectory()
    ? "a directory"
    : stat.isFIFO()
      ? "a FIFO"
      : stat.isSocket()
        ? "a socket"
        : stat.isCharacterDevice()
          ? "a character device"
          : "no regular file";
  throw new MultifdError(
    "TARGET_REFUSED",
    `${name} is ${what}: an image needs a regular file or a block device`,
  );
}

/** Size of a block device by its number, from sysfs: Node has no lseek. */
export function deviceBytes(rdev: number): number {
  const major = ((rdev >> 8) & 0xfff) | (Math.floor(rdev / 2 ** 32) & ~0xfff);
  const minor = (rdev & 0xff) | ((rdev >> 12) & 0xfff00);
  const sectors = fs.readFileSync(`/sys/dev/block/${major}:${minor}/size`, "utf8");
  return Number(sectors) * 512;
}

/** What a file takes of its disk; st_blocks counts in 512 bytes whatever the file system (stat(2)). */
export function diskBytes(stat: fs.Stats): number {
  return stat.blocks * 512;
}

/** The number in `fd:N`, or null for a path. */
export function inheritedFd(image: string): number | null {
  const [, digits] = /^fd:(\d{1,9})$/.exec(image) ?? [];
  return digits === undefined ? null : Number(digits);
}
