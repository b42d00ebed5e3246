import { guardImage } from "../../../src/control/instant/guard-image.ts";
import type { Log } from "../../../src/control/options.ts";
import { GONE, markImage, markOf, withContents } from "../marked-image.ts";

/**
 * A process that does what an instant restore does with an image before its VM runs, for tests that end it on the way: says
 * `marked` when it may run, and with `--guard` keeps the image until its stdin ends. Notes go to stderr.
 */
const [image = "", guard] = process.argv.slice(2);
await markImage(image, markOf(GONE));
process.stdout.write("marked\n");
if (guard === "--guard") {
  const note = (_fields: object, text: string): void => void process.stderr.write(`${text}\n`);
  const log: Log = { debug: note, info: note, warn: note, error: note };
  await withContents(image, async (fd) => {
    const { release } = guardImage(fd, image, log);
    process.stdout.write("guarded\n");
    for await (const _ of process.stdin);
    release();
  });
}
