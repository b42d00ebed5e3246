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

/** QEMU's words for a command that it does not carry out. */
export interface QmpRefusal {
  readonly class: string;
  readonly desc: string;
}

/** A line from QEMU: a greeting, an event, or the answer to a command; "other": none of these. */
export type QmpMessage =
  | { readonly kind: "greeting"; readonly version: QmpVersion; readonly outOfBand: boolean }
  | { readonly kind: "event"; readonly event: QmpEvent }
  | { readonly kind: "answer"; readonly id: unknown; readonly result: unknown }
  | { readonly kind: "refusal"; readonly id: unknown; readonly error: QmpRefusal }
  | { readonly kind: "other" };

/** Reads one line of the protocol (docs/interop/qmp-spec of QEMU 7.2 and 10.0). Never throws. */
export function parseMessage(line: string): QmpMessage {
  const message = parseObject(line);
  const { QMP: greeting, event, data, id, error } = message;
  if (isObject(greeting)) {
    const version = parseVersion(greeting.version);
    const outOfBand = Array.isArray(greeting.capabilities) && greeting.capabilities.includes("oob");
    return version === null ? { kind: "other" } : { kind: "greeting", version, outOfBand };
  }
  if (typeof event === "string") {
    return { kind: "event", event: { event, data: isObject(data) ? data : {} } };
  }
  if (isObject(error) && typeof error.class === "string" && typeof error.desc === "string") {
    return { kind: "refusal", id, error: { class: error.class, desc: error.desc } };
  }
  return "return" in message ? { kind: "answer", id, result: message.return } : { kind: "other" };
}

/** The value of a greeting's `version` and of query-version's answer; null if it is none. */
export function parseVersion(value: unknown): QmpVersion | null {
  if (!isObject(value) || !isObject(value.qemu)) return null;
  const { major, minor, micro } = value.qemu;
  if (typeof major !== "number" || typeof minor !== "number" || typeof micro !== "number") return null;
  return { major, minor, micro, package: typeof value.package === "string" ? value.package : "" };
}

/** QEMU said no to `command`; its own class and text are in details. */
export function refusal(command: string, error: QmpRefusal): MultifdError {
  const details = { command, class: error.class, text: error.desc };
  return new MultifdError("QEMU_FAILED", `QEMU refused ${command}: ${error.desc}`, details);
}

function parseObject(line: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(line);
    return isObject(value) ? value : {};
  } catch {
    return {};
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
