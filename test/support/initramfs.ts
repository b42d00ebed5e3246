import { gzipSync } from "node:zlib";

/** A directory (no content) or an executable file of an initial RAM disk. Folders come before what is in them. */
export interface InitramfsEntry {
  /** Without a leading slash. */
  readonly name: string;
  readonly content?: Buffer;
}

const DIRECTORY = 0o040755;
const EXECUTABLE = 0o100755;

/** A gzipped cpio archive in the "newc" format, as Documentation/driver-api/early-userspace/buffer-format.rst of Linux has it. */
export function initramfs(entries: readonly InitramfsEntry[]): Buffer {
  const members = entries.map(({ name, content }, index) =>
    member(name, index + 1, content === undefined ? DIRECTORY : EXECUTABLE, content ?? Buffer.alloc(0)),
  );
  return gzipSync(Buffer.concat([...members, member("TRAILER!!!", 0, 0, Buffer.alloc(0))]), { level: 1 });
}

function member(name: string, inode: number, mode: number, content: Buffer): Buffer {
  const [uid, gid, links, time, device, check] = [0, 0, 1, 0, [0, 0, 0, 0], 0];
  const nameBytes = Buffer.byteLength(name) + 1;
  const fields = [inode, mode, uid, gid, links, time, content.length, ...device, nameBytes, check];
  const header = `070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}`;
  return Buffer.concat([padded(Buffer.from(`${header}${name}\0`)), padded(content)]);
}

/** With zeros up to a multiple of 4. */
function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(-bytes.length & 3)]);
}
