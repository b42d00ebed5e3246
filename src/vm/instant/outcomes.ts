import { unguard } from "../../control/instant/guard-image.ts";
import { MultifdError, toFailure } from "../../errors.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import { targetOption } from "../target.ts";
import type { ServedImage } from "./served-image.ts";

/*
 * How an instant restore can end before its time. Once the guest was told to run, `details.ran` is true, and the sentence
 * says what became of the VM.
 */

/** The VM stays as it is, and somebody can go on. */
export function leftWaiting(error: unknown, image: ServedImage, monitor: Monitor): MultifdError {
  const way = `multifd-helper restore ${image.path} --resume ${option(monitor)} goes on`;
  return ran(error, `the VM is left waiting for the rest of its RAM, and unharmed: ${way}`);
}

/** No page that is not as it was saved reaches a guest: it waits for ever, unless there is another copy. */
export function damaged(error: MultifdError, image: ServedImage, monitor: Monitor): MultifdError {
  const way = `with a good copy of ${image.path}: multifd-helper restore COPY --resume --force ${option(monitor)}`;
  return ran(
    error,
    `the VM is left waiting for what is damaged; go on ${way}; or end the VM and boot it afresh`,
  );
}

export function endedEarly(error: unknown): MultifdError {
  const text =
    "QEMU ended before the VM had all its RAM; its memory is lost, and the image too old for its disks";
  return new MultifdError("QEMU_FAILED", text, { ran: true, ended: true }, error);
}

/** Of a VM that has its devices and is to run. Where QEMU itself refused that, it has certainly not run. */
export function notLetRun(error: unknown, image: ServedImage, monitor: Monitor): MultifdError {
  const { code, message, details } = toFailure(error);
  if (details.class === undefined) return leftWaiting(error, image, monitor);
  // What served it has protected it, and has left that as it was told to end in the middle.
  unguard(image.fd, image.path);
  const text = `${message}; the VM has not run, so that its image, which says that it may have, can be restored again with --force, into a new QEMU`;
  return new MultifdError(code, text, { ...details, ran: false }, error);
}

/** Of a data plane that said nothing. */
export function unexplained(why: string): MultifdError {
  return new MultifdError("INTERNAL", `the process that serves the VM's RAM ${why}`);
}

function ran(error: unknown, became: string): MultifdError {
  const { code, message, details } = toFailure(error);
  return new MultifdError(code, `${message}; ${became}`, { ...details, ran: true }, error);
}

function option({ place }: Monitor): string {
  return targetOption({ qmp: place });
}
