import fs from "node:fs";

/** Version of the manager contract: docs/manager-contract.md. It changes when something there is taken away. */
export const CONTRACT_VERSION = 1;

/** Version of this package. */
export const VERSION: string = readVersion();

function readVersion(): string {
  const file = new URL("../../package.json", import.meta.url);
  return (JSON.parse(fs.readFileSync(file, "utf8")) as { version: string }).version;
}
