import { DEFAULT_CHANNELS } from "../../control/options.ts";
import type { Settings } from "../settings.ts";
import type { SaveVmOptions } from "./options.ts";

/** What QEMU is set to for a save. */
export function settingsFor(options: SaveVmOptions): Settings {
  const { channels = DEFAULT_CHANNELS, compression = "none", compressionLevel, live, rate } = options;
  const multifd = channels > 0;
  return {
    capabilities: { events: true, multifd },
    parameters: {
      "max-bandwidth": rate ?? 0,
      ...(multifd ? { "multifd-channels": channels, "multifd-compression": compression } : {}),
      ...(compressionLevel === undefined ? {} : { [`multifd-${compression}-level`]: compressionLevel }),
      ...(live?.maxDowntimeMs === undefined ? {} : { "downtime-limit": live.maxDowntimeMs }),
    },
  };
}
