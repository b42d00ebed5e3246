import type { Expectations } from "../../control/options.ts";
import type { ServingOptions } from "./options.ts";

/** The command line that says the same as these options. */
export function dataPlaneArguments(options: ServingOptions): string[] {
  const { connectTimeoutMs, force, unverified, expect } = options;
  const values: readonly (readonly [string, string | number | undefined])[] = [
    ["--offset", options.offset],
    ["--direct-io", options.directIo],
    ["--workers", options.workers],
    ["--connect-timeout", connectTimeoutMs === undefined ? undefined : connectTimeoutMs / 1000],
    ["--expect", expect === undefined ? undefined : expectText(expect)],
    ["--verify", options.verify],
    ["--background-rate", options.backgroundRate],
  ];
  return [
    ...values.flatMap(([option, value]) =>
      value === undefined || value === "" ? [] : [option, String(value)],
    ),
    ...(force ? ["--force"] : []),
    ...(unverified ? ["--unverified"] : []),
  ];
}

/** @param hostPages sizes of pages by the names of their RAMBlocks */
export function hostPageArguments(hostPages: Readonly<Record<string, number>>): string[] {
  return Object.entries(hostPages).flatMap(([block, bytes]) => ["--host-pages", `${block}=${bytes}`]);
}

/** As --expect takes it: "uuid=…,machine=…". */
function expectText({ channels, uuid, machine }: Expectations): string {
  return Object.entries({ channels, uuid, machine })
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => `${key}=${value}`)
    .join(",");
}
