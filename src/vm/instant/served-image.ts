import { closeSync, constants, openSync } from "node:fs";
import { resolve } from "node:path";
import { hasCode, ioError } from "../../io/file-io.ts";
import { inheritedFd } from "../../io/image-target/file-kind.ts";

const { O_RDWR, O_RDONLY } = constants;

/**
 * An image that stays open while its pages are served, so that every process that serves them has the same file, also
 * when its name has gone.
 */
export class ServedImage {
  readonly fd: number;
  /** As the user named it. */
  readonly name: string;
  /** The same from wherever it is said. */
  readonly path: string;
  readonly #inherited: boolean;

  /** @throws MultifdError IO */
  constructor(image: string) {
    const inherited = inheritedFd(image);
    this.name = image;
    this.path = inherited === null ? resolve(image) : image;
    this.#inherited = inherited !== null;
    this.fd = inherited ?? openBestly(image);
  }

  close(): void {
    if (!this.#inherited) closeSync(this.fd);
  }
}

/** For writing, too, where that is allowed: the image is marked as used. Who serves it says so where it cannot be. */
function openBestly(path: string): number {
  try {
    return openSync(path, O_RDWR);
  } catch (error) {
    if (hasCode(error, "EACCES", "EPERM", "EROFS", "ETXTBSY")) return openSync(path, O_RDONLY);
    throw ioError(error, `opening ${path}`);
  }
}
