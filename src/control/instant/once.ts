import { randomUUID } from "node:crypto";
import type { QemuIdentity } from "../../formats/mapped-ram/resumed.ts";
import type { MappedContents } from "../mapped-ram/contents.ts";
import {
  completeMark,
  eraseMark,
  type FoundMark,
  findMark,
  refuseUnmarkable,
  writeMark,
} from "../mapped-ram/resumed.ts";
import type { Log } from "../options.ts";
import { SILENT } from "../silent-log.ts";
import { guardImage, type ImageGuard, lockForUse } from "./guard-image.ts";
import type { InstantOptions } from "./options.ts";
import { refuseRanOn, refuseUnlessResumable, reportMark } from "./ran-on.ts";

/**
 * Sees to it that the VM of an image runs from there at most once: the image says so before the guest may run, and is kept as
 * it is until the guest has all of its RAM.
 */
export class AtMostOnce {
  readonly #fd: number;
  readonly #contents: MappedContents;
  readonly #options: InstantOptions;
  readonly #log: Log;
  readonly #found: FoundMark;
  #guard: ImageGuard | null = null;
  #marked = false;

  private constructor(fd: number, contents: MappedContents, options: InstantOptions, found: FoundMark) {
    this.#fd = fd;
    this.#contents = contents;
    this.#options = options;
    this.#log = options.log ?? SILENT;
    this.#found = found;
  }

  /**
   * Throws VM_RAN_ON, VM_MISMATCH, IMAGE_DAMAGED (the mark cannot be read), TARGET_BUSY, TARGET_REFUSED, READ_ONLY: before
   * anything has happened.
   */
  static async of(fd: number, contents: MappedContents, options: InstantOptions): Promise<AtMostOnce> {
    const found = await findMark(fd, contents);
    if (options.resume === true) {
      // As much as can be, because a QEMU before 8.2 does not live through a recovery that breaks off once it has begun.
      if (options.force !== true) refuseUnlessResumable(reportMark(found), null, options);
      lockForUse(fd, options.image);
    } else {
      refuseRanOn(reportMark(found), options);
      refuseUnmarkable(fd, contents, options.image);
    }
    return new AtMostOnce(fd, contents, options, found);
  }

  /**
   * To be called before the guest may run, or goes on. When this resolves, the mark is on stable storage.
   * @param qemu who is connected; null: nobody can tell
   * @throws MultifdError VM_MISMATCH, VM_RAN_ON, TARGET_BUSY, TARGET_REFUSED, READ_ONLY, IO
   */
  async begin(qemu: QemuIdentity | null): Promise<void> {
    const { image, resume } = this.#options;
    if (resume) refuseUnlessResumable(reportMark(this.#found), qemu, this.#options);
    if (!resume || this.#found === null) {
      const mark = { resumedMs: Date.now(), completedMs: null, session: randomUUID(), qemu };
      await writeMark(this.#fd, this.#contents, mark, { image, expected: this.#found });
      this.#marked = true;
    }
    this.#guard = guardImage(this.#fd, image, this.#log);
  }

  /** The guest has certainly not run. */
  async takeBack(): Promise<void> {
    if (!this.#marked) return;
    await this.#tidied(() => eraseMark(this.#fd, this.#contents, this.#options.image));
  }

  /** The guest has all of its RAM, and depends on the image no more. */
  async complete(): Promise<void> {
    const { image } = this.#options;
    this.#guard?.release();
    await this.#tidied(() => completeMark(this.#fd, this.#contents, { image, completedMs: Date.now() }));
  }

  /** What goes wrong here changes nothing for the guest. */
  async #tidied(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.#log.warn({ image: this.#options.image }, (error as Error).message);
    }
  }
}
