import { rmSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { whenAborted } from "../../control/cancellation.ts";
import { SILENT } from "../../control/silent-log.ts";
import { MultifdError } from "../../errors.ts";
import { privateDirectory } from "../../io/private-directory.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import { prepareRescue } from "../../qmp/rescue-pipe.ts";
import { openMonitor, targetName } from "../target.ts";
import { DataPlane } from "./data-plane.ts";
import { dataPlaneArguments } from "./data-plane-arguments.ts";
import { endFormerHelper } from "./former-helper.ts";
import { listenAgain, overPipe } from "./listen-again.ts";
import type { ResumeInstantOptions } from "./options.ts";
import { ServedImage } from "./served-image.ts";

/** Whether a monitor greets and then does not answer: QEMU's main loop hangs. */
export function isHanging(error: unknown): boolean {
  return error instanceof MultifdError && error.details.awaited === "qmp_capabilities";
}

const CONNECT_MS = 30_000;

/**
 * The monitor of a QEMU whose main loop itself waits for a page: over its rescue pipe it is made to listen, and is served until
 * its monitor answers.
 * @throws MultifdError QEMU_FAILED, also where it has no such pipe
 */
export async function untilItAnswers(options: ResumeInstantOptions): Promise<Monitor> {
  const { log = SILENT } = options;
  const path = targetName(options.vm);
  if (!prepareRescue(path)) throw unreachable(path);
  const directory = privateDirectory("restore");
  const image = new ServedImage(options.image);
  let plane: DataPlane | null = null;
  const stopListening = whenAborted(options.signal, () => void plane?.stop());
  try {
    const socket = `${directory}/s`;
    await listenAgain(overPipe(path), socket);
    await endFormerHelper(image.fd, log);
    plane = new DataPlane({
      image,
      args: ["--connect", `unix:${socket}`, "--resume", ...dataPlaneArguments(options)],
      onEvent: () => undefined,
      log,
    });
    const gone = plane.ended.then(async (end) => {
      if ("completed" in end) await sleep(CONNECT_MS, undefined, { ref: false });
      throw "failure" in end ? end.failure : unreachable(path);
    });
    return await Promise.race([openMonitor(options.vm, CONNECT_MS), gone]);
  } finally {
    // The one that follows is told what only the monitor knows.
    stopListening();
    await plane?.stop();
    rmSync(directory, { recursive: true, force: true });
    image.close();
  }
}

function unreachable(path: string): MultifdError {
  const text = `the QEMU at ${path} waits for a page of its RAM with its whole main loop, so that its monitor obeys nobody who was not connected before: QEMU needs a rescue pipe for that (docs/instant-restore.md); end it, and boot the VM afresh`;
  return new MultifdError("QEMU_FAILED", text, { path });
}
