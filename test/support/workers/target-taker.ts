import fs from "node:fs";
import { parentPort, workerData } from "node:worker_threads";
import { openTarget } from "../../../src/io/image-target/open.ts";
import { partialName } from "../../../src/io/image-target/replacement.ts";

const { image, until } = workerData as { image: string; until: number };
const partial = partialName(image);

/** Takes the target again and again, and counts how often what it took was taken away or replaced meanwhile. */
let taken = 0;
let lost = 0;
while (Date.now() < until) {
  const target = await openTarget({ image, offset: 0, directIo: "off", onNote: () => undefined }).catch(
    () => null,
  );
  if (target === null) continue;
  taken += 1;
  await new Promise(setImmediate);
  const there = fs.lstatSync(partial, { throwIfNoEntry: false });
  if (there?.ino !== fs.fstatSync(target.fd).ino) lost += 1;
  await target.discard();
  // What a killed helper leaves: a file that nobody has locked.
  if (taken % 2 === 0) fs.closeSync(fs.openSync(partial, "a"));
}
parentPort?.postMessage({ taken, lost });
