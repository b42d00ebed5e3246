import { MultifdError } from "../errors.ts";
import type { Monitor } from "../qmp/monitor.ts";

/** Migration capabilities and parameters by QEMU's names. */
export interface Settings {
  readonly capabilities: Readonly<Record<string, boolean>>;
  readonly parameters: Readonly<Record<string, unknown>>;
}

/** Reads all that this QEMU has. */
export async function readSettings(monitor: Monitor): Promise<Settings> {
  const states = (await monitor.execute("query-migrate-capabilities")) as readonly {
    capability: string;
    state: boolean;
  }[];
  const parameters = (await monitor.execute("query-migrate-parameters")) as Record<string, unknown>;
  return {
    capabilities: Object.fromEntries(states.map(({ capability, state }) => [capability, state])),
    parameters,
  };
}

/**
 * Sets `wanted` and turns off every capability that it does not name: each of them changes what is sent, and how. So
 * does TLS: our sockets do not speak it.
 * @throws MultifdError QEMU_UNSUPPORTED where this QEMU lacks one of `wanted`, QEMU_FAILED where it refuses
 */
export async function applySettings(monitor: Monitor, found: Settings, wanted: Settings): Promise<void> {
  const lacking = [
    ...Object.keys(wanted.capabilities).filter((name) => !(name in found.capabilities)),
    ...Object.keys(wanted.parameters).filter((name) => !(name in found.parameters)),
  ];
  if (lacking.length > 0) {
    const { major, minor, micro } = monitor.version;
    const text = `QEMU ${major}.${minor}.${micro} at ${monitor.place} has no ${lacking.join(", ")}: use a newer QEMU, or do without`;
    throw new MultifdError("QEMU_UNSUPPORTED", text, { lacking: lacking.join(",") });
  }
  await set(monitor, {
    capabilities: { ...all(found.capabilities, false), ...wanted.capabilities },
    parameters: { ...(usesTls(found) ? { [TLS]: "" } : {}), ...wanted.parameters },
  });
}

/** Credentials of the VM's earlier or later migrations; "" is none (qapi/migration.json, QEMU 7.2 to 10). */
const TLS = "tls-creds";

function usesTls({ parameters }: Settings): boolean {
  return (parameters[TLS] ?? "") !== "";
}

export const NO_SETTINGS: Settings = { capabilities: {}, parameters: {} };

/** Where both name the same, the second counts. */
export function together(first: Settings, second: Settings): Settings {
  return {
    capabilities: { ...first.capabilities, ...second.capabilities },
    parameters: { ...first.parameters, ...second.parameters },
  };
}

/**
 * What has to be said to QEMU to undo applySettings().
 * @param more names of parameters that may be set besides; those that QEMU lacks are left out
 */
export function settingsToPutBack(found: Settings, wanted: Settings, more: readonly string[] = []): Settings {
  const tls = usesTls(found) ? [TLS] : [];
  const names = [...Object.keys(wanted.parameters), ...more, ...tls].filter(
    (name) => name in found.parameters,
  );
  return {
    capabilities: found.capabilities,
    parameters: Object.fromEntries(names.map((name) => [name, found.parameters[name]])),
  };
}

/** Capabilities that QEMU has for itself and takes from nobody: setting them back to what they are is refused by some. */
export async function set(monitor: Monitor, { capabilities, parameters }: Settings): Promise<void> {
  const now = await readSettings(monitor);
  const changes = Object.entries(capabilities)
    .filter(([name, state]) => now.capabilities[name] !== undefined && now.capabilities[name] !== state)
    .map(([capability, state]) => ({ capability, state }));
  if (changes.length > 0) await monitor.execute("migrate-set-capabilities", { capabilities: changes });
  if (Object.keys(parameters).length > 0) await monitor.execute("migrate-set-parameters", parameters);
}

function all(capabilities: Settings["capabilities"], state: boolean): Record<string, boolean> {
  return Object.fromEntries(Object.keys(capabilities).map((name) => [name, state]));
}
