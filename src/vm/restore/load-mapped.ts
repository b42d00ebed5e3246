import type { CompletedEvent } from "../../control/events.ts";
import { checkExpectations } from "../../control/expectations.ts";
import { Meter } from "../../control/meter.ts";
import { DEFAULT_CHANNELS, type RestoreOptions } from "../../control/options.ts";
import type { MappedRamReport } from "../../control/reports.ts";
import { SILENT } from "../../control/silent-log.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import { finishFileRestore, prepareFileRestore } from "../engine-file/restore.ts";
import { listen, waitIncoming } from "./incoming.ts";

/**
 * QEMU reads a mapped-ram image itself, with as many threads as --channels says: the image prescribes none.
 * @param onListening called when QEMU has begun
 */
export async function loadMapped(
  monitor: Monitor,
  image: MappedRamReport,
  options: Omit<RestoreOptions, "connect">,
  onListening: () => void,
): Promise<CompletedEvent> {
  const { channels = DEFAULT_CHANNELS, log = SILENT } = options;
  const uuid = image.metadata?.vmUuid ?? null;
  checkExpectations({ machine: image.machine, uuid, multifdChannels: null }, options, log);
  const meter = new Meter();
  const prepared = await prepareFileRestore(monitor, { ...options, channels });
  try {
    await listen(monitor, prepared, prepared.uri);
    onListening();
    await waitIncoming(monitor, options.signal);
  } finally {
    await finishFileRestore(prepared);
  }
  return completedMapped(image, meter.elapsedMs, prepared.directIo);
}

/** A mapped-ram image that QEMU has all of. */
export function completedMapped(
  { path, imageUuid, bytes, dataBytes, machine, metadata }: MappedRamReport,
  elapsedMs: number,
  directIo: boolean,
): CompletedEvent {
  return {
    event: "completed",
    bytes: dataBytes,
    elapsedMs,
    image: {
      ...{ path, format: "mapped-ram", uuid: imageUuid, bytes: bytes ?? 0, directIo },
      ...{ machine, vmUuid: metadata?.vmUuid ?? null, multifdChannels: 0, compression: null },
    },
    channels: [],
  };
}
