import { rmSync } from "node:fs";
import { join } from "node:path";
import type { CompletedEvent } from "../../control/events.ts";
import { DEFAULT_CHANNELS, type RestoreOptions } from "../../control/options.ts";
import type { DestinationNeeds, MappedRamReport, StreamImageReport } from "../../control/reports.ts";
import { restore } from "../../control/restore.ts";
import { teller } from "../../control/telling.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import { listenForImage, waitIncoming } from "./incoming.ts";
import { socketDirectory } from "./socket-directory.ts";

/**
 * An image of streams, which says how the destination must be set up.
 * @param onListening called when QEMU waits for the channels
 */
export function feedStreams(
  monitor: Monitor,
  { destination }: StreamImageReport,
  options: Omit<RestoreOptions, "connect">,
  onListening: () => void,
): Promise<CompletedEvent> {
  return feedImage(monitor, destination as DestinationNeeds, options, onListening);
}

/** A mapped-ram image: the channels are ours to choose, and what they carry is an ordinary migration. */
export function feedPages(
  monitor: Monitor,
  { machine, capabilities }: MappedRamReport,
  options: Omit<RestoreOptions, "connect">,
  onListening: () => void,
): Promise<CompletedEvent> {
  const { channels = DEFAULT_CHANNELS } = options;
  const needs: DestinationNeeds = {
    machine,
    multifd: channels > 0,
    multifdChannels: channels,
    multifdCompression: "none",
    uuid: null,
    capabilities: capabilities.filter((name) => name !== "mapped-ram"),
    zeroedRam: false,
  };
  return feedImage(monitor, needs, options, onListening);
}

/** Our own data path: QEMU listens on a socket, and the image's channels go there. */
async function feedImage(
  monitor: Monitor,
  needs: DestinationNeeds,
  options: Omit<RestoreOptions, "connect">,
  onListening: () => void,
): Promise<CompletedEvent> {
  const directory = socketDirectory(monitor.pid);
  const tell = teller(options);
  try {
    const uri = `unix:${join(directory, "s")}`;
    await listenForImage(monitor, needs, uri);
    onListening();
    // `completed` is told when the VM is there.
    const onEvent: RestoreOptions["onEvent"] = (event) => event.event === "completed" || tell(event);
    const completed = await restore({ ...options, connect: uri, onEvent });
    await waitIncoming(monitor, options.signal);
    return completed;
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}
