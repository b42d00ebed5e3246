import { MultifdError } from "../../errors.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import { readSettings, type Settings } from "../settings.ts";

/** What this QEMU can do with mapped-ram files. */
export interface MappedRamOffer {
  /** The parameter direct-io exists (QEMU 9.1 and later). */
  readonly directIo: boolean;
  /** What is to be set before the migration: mapped-ram on, and what cannot go with a file off. */
  capabilities(multifd: boolean): Settings["capabilities"];
}

const INSTEAD = "switch it off, or use --engine helper";

/**
 * Capabilities that QEMU 10.0.2 refuses together with mapped-ram, or accepts and then breaks (tried: the first two give
 * files that cannot be restored or no file at all; a COLO stream is no saved VM).
 */
const IMPOSSIBLE: ReadonlyMap<string, string> = new Map([
  ["background-snapshot", "QEMU then never writes the bitmaps, so that the file would restore without RAM"],
  ["x-ignore-shared", "QEMU then fails to write the bitmap, or writes a file that it cannot read"],
  ["xbzrle", "mapped-ram takes whole pages only"],
  ["postcopy-ram", "a file cannot answer page faults"],
  ["compress", "mapped-ram takes whole pages only"],
  ["x-colo", "its stream is no saved VM"],
]);

/** Harmless settings that a file cannot serve: a return path fails with "Bad file descriptor", and nobody says migrate-continue. */
const OFF: readonly string[] = ["return-path", "pause-before-switchover"];

/**
 * Asks QEMU whether it can save to a mapped-ram file, or load one, as it is set up now.
 * @throws MultifdError QEMU_UNSUPPORTED, QEMU_FAILED
 */
export async function probeMappedRam(monitor: Monitor): Promise<MappedRamOffer> {
  const { capabilities, parameters } = await readSettings(monitor);
  if (!("mapped-ram" in capabilities)) {
    const { major, minor, micro } = monitor.version;
    throw new MultifdError(
      "QEMU_UNSUPPORTED",
      `QEMU ${major}.${minor}.${micro} does not offer mapped-ram, which came with 9.0: use --engine helper`,
      { capability: "mapped-ram" },
    );
  }
  for (const [capability, state] of Object.entries(capabilities)) {
    const why = IMPOSSIBLE.get(capability);
    if (state && why !== undefined) throw impossible(`the capability ${capability}`, why, capability);
  }
  const compression = parameters["multifd-compression"];
  if (compression !== undefined && compression !== "none") {
    throw impossible(
      `multifd-compression ${compression}`,
      "mapped-ram takes whole pages only",
      "multifd-compression",
    );
  }
  if (typeof parameters["tls-creds"] === "string" && parameters["tls-creds"] !== "") {
    throw impossible("tls-creds", "a file is no connection that could be encrypted", "tls-creds");
  }
  return {
    directIo: "direct-io" in parameters,
    capabilities: (multifd) => ({
      ...Object.fromEntries(OFF.filter((name) => name in capabilities).map((name) => [name, false])),
      "mapped-ram": true,
      multifd,
      events: true,
    }),
  };
}

function impossible(what: string, why: string, setting: string): MultifdError {
  const text = `QEMU has ${what} on, which does not go together with --engine file: ${why}; ${INSTEAD}`;
  return new MultifdError("QEMU_UNSUPPORTED", text, { setting });
}
