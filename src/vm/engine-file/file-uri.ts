import fs from "node:fs";
import { MultifdError } from "../../errors.ts";
import { ioError } from "../../io/file-io.ts";
import { tryShare } from "../../io/libc.ts";
import type { Monitor } from "../../qmp/monitor.ts";

const { O_DIRECT } = fs.constants;
/** What our descriptors are called among QEMU's. */
const OPAQUE = "multifd-helper";

interface FdSet {
  readonly "fdset-id": number;
  readonly fds: readonly { readonly opaque?: string }[];
}

/** How QEMU reaches a file that we have open. */
export interface FileForQemu {
  /** For `migrate` or `migrate-incoming`. */
  readonly uri: string;
  /** Takes back what QEMU was given. A QEMU that is gone, or that has none of it any more, is no error. */
  release(): Promise<void>;
}

export interface FileRequest {
  /** Our descriptor of the file. */
  readonly fd: number;
  /** Its path, for a monitor that passes no descriptors; null: only descriptors lead to it. */
  readonly path: string | null;
  /** fs.constants.O_WRONLY or O_RDONLY: QEMU looks for exactly this mode, and O_RDWR does not count. */
  readonly mode: number;
  readonly directIo: boolean;
  /** Where the stream begins in the file. */
  readonly offset: number;
}

/**
 * Gives QEMU the file: as an fdset with exactly one descriptor without O_DIRECT and, for direct-io, one with it, each
 * an opening of its own (monitor_fdset_dup_fd_add of QEMU 10.0.2 compares access mode and O_DIRECT, and a missing one
 * for saving is a SIGSEGV); by its path where the monitor passes no descriptors.
 * @throws MultifdError QEMU_FAILED, QEMU_UNSUPPORTED, READ_ONLY, IO
 */
export async function giveFile(monitor: Monitor, request: FileRequest): Promise<FileForQemu> {
  const suffix = request.offset === 0 ? "" : `,offset=${request.offset}`;
  if (!monitor.passesFds) {
    return { uri: `file:${pathForQemu(request.path)}${suffix}`, release: async () => undefined };
  }
  const { mode, directIo } = request;
  const set = await addOpening(monitor, request, mode, null);
  const release = () => dropSet(monitor, set);
  try {
    if (directIo) await addOpening(monitor, request, mode | O_DIRECT, set);
    return { uri: `file:/dev/fdset/${set}${suffix}`, release };
  } catch (error) {
    await release();
    throw error;
  }
}

/** Opens the file once more and sends that; ours is closed again, since QEMU has its own then. Returns the fdset's id. */
async function addOpening(
  monitor: Monitor,
  { fd }: FileRequest,
  flags: number,
  set: number | null,
): Promise<number> {
  let opening: number;
  try {
    opening = fs.openSync(`/proc/self/fd/${fd}`, flags);
  } catch (error) {
    throw ioError(error, "opening the image for QEMU");
  }
  try {
    // The lock is the opening's, and so QEMU's for as long as it reads: no save in place writes over the image meanwhile.
    if (flags === fs.constants.O_RDONLY) tryShare(opening);
    const args = { ...(set === null ? {} : { "fdset-id": set }), opaque: OPAQUE };
    const added = (await monitor.execute("add-fd", args, { fd: opening })) as { "fdset-id": number };
    return added["fdset-id"];
  } finally {
    fs.closeSync(opening);
  }
}

/** Takes back what a killed save left with QEMU: the room of a file that has no name any more is QEMU's as long as it has it open. */
export async function takeFilesBack(monitor: Monitor): Promise<void> {
  const sets = (await monitor.execute("query-fdsets")) as readonly FdSet[];
  const ours = sets.filter(({ fds }) => fds.length > 0 && fds.every(({ opaque }) => opaque === OPAQUE));
  for (const set of ours) await dropSet(monitor, set["fdset-id"]);
}

async function dropSet(monitor: Monitor, set: number): Promise<void> {
  try {
    await monitor.execute("remove-fd", { "fdset-id": set });
  } catch (error) {
    if (!(error instanceof MultifdError) || error.code !== "QEMU_FAILED") throw error;
  }
}

/** QEMU cuts a file: URI at the first ",offset=" (file_parse_offset, 10.0.2). */
function pathForQemu(path: string | null): string {
  if (path !== null && !path.includes(",offset=")) return path;
  const text =
    path === null
      ? "this monitor passes no descriptors, so that --engine file needs the image's path: give that, or use --engine helper"
      : `QEMU would misread the path ${path} because of its ",offset=": choose another one, or use --engine helper`;
  throw new MultifdError("QEMU_UNSUPPORTED", text, { path });
}
