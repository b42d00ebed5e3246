import { identityOf } from "../../src/control/instant/identity.ts";
import { type MappedContents, openContents } from "../../src/control/mapped-ram/contents.ts";
import { findStream } from "../../src/control/mapped-ram/find-stream.ts";
import { openFileOf } from "../../src/control/mapped-ram/open.ts";
import { findMark, writeMark } from "../../src/control/mapped-ram/resumed.ts";
import type { QemuIdentity, ResumedMark } from "../../src/formats/mapped-ram/resumed.ts";
import { readAligned } from "../../src/io/file-io.ts";
import { openSource } from "../../src/io/source.ts";

export const SESSION = "5e551011-0000-4000-8000-000000000003";
export const RESUMED_MS: number = Date.UTC(2026, 0, 2);

/** QEMUs as marks name them: one that runs, which is this process, and one of another boot. */
export const ALIVE: QemuIdentity = identityOf(process.pid) as QemuIdentity;
export const GONE: QemuIdentity = {
  ...{ pid: 4711, startTicks: 123_456, bootId: "b0071d00-0000-4000-8000-000000000004" },
};

export function markOf(qemu: QemuIdentity | null, more: Partial<ResumedMark> = {}): ResumedMark {
  return { resumedMs: RESUMED_MS, completedMs: null, session: SESSION, qemu, ...more };
}

/** Opens a mapped-ram image of any kind as a restore does. */
export async function withContents<T>(
  image: string,
  work: (fd: number, contents: MappedContents) => Promise<T>,
  offset = 0,
): Promise<T> {
  const source = await openSource({ image, offset, directIo: "auto", onNote: () => undefined });
  try {
    const head = await readAligned(source.fd, source.base, 4096);
    const place = await findStream(source, head, offset);
    return await work(source.fd, await openContents(openFileOf(source), place?.base ?? source.base));
  } finally {
    source.close();
  }
}

/** What an instant restore does before it lets the VM run. */
export async function markImage(image: string, mark: ResumedMark, offset = 0): Promise<void> {
  await withContents(
    image,
    async (fd, contents) => {
      await writeMark(fd, contents, mark, { image, expected: await findMark(fd, contents) });
    },
    offset,
  );
}
