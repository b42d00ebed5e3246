import { MultifdError } from "../errors.ts";

/** An asynchronous message of QEMU, for example MIGRATION or STOP. `data` is {} where QEMU sends none. */
export interface QmpEvent {
  readonly event: string;
  readonly data: Readonly<Record<string, unknown>>;
}

export interface QmpVersion {
  readonly major: number;
  readonly minor: number;
  readonly micro: number;
  /** What the packager added, e.g. "Debian 1:7.2+dfsg-7+deb12u18"; often empty. */
  readonly package: string;
}

/** A line from QEMU: exactly one of greeting, event, and answer by id. */
export interface QmpMessage {
  readonly QMP?: {
    readonly version: { readonly qemu: Omit<QmpVersion, "package">; readonly package?: string };
  };
  readonly id?: number;
  readonly return?: unknown;
  readonly error?: { readonly class: string; readonly desc: string };
  readonly event?: string;
  readonly data?: Record<string, unknown>;
}

/** {} for what is no JSON object: it then counts as neither greeting, event nor answer. */
export function parseMessage(line: string): QmpMessage {
  try {
    return Object(JSON.parse(line)) as QmpMessage;
  } catch {
    return {};
  }
}

/** QEMU said no to `command`; its own class and text are in details. */
export function refusal(command: string, error: { class: string; desc: string }): MultifdError {
  const details = { command, class: error.class, text: error.desc };
  return new MultifdError("QEMU_FAILED", `QEMU refused ${command}: ${error.desc}`, details);
}
