import { MultifdError, toFailure } from "../errors.ts";
import type { Identity } from "../pool/control-block.ts";
import type { Arrival } from "./arrival.ts";
import { labelOf } from "./image-facts.ts";

/** A worker's failure, with the channel it belongs to. */
export function named(identity: Identity, number: number, error: unknown): MultifdError {
  const { code, message, details } = toFailure(error);
  const connection = `connection ${number + 1}`;
  const label = identity === "unknown" ? connection : labelOf(identity);
  const channel = identity === "unknown" ? connection : identity;
  return new MultifdError(code, `${label}: ${message}`, { channel, ...details }, error);
}

/** Whether a drain failed only because the connection closed before it said anything. */
export function isEarlyEnd(error: unknown): boolean {
  return error instanceof MultifdError && (error.code === "STREAM_INCOMPLETE" || error.code === "PROTOCOL");
}

/** Why a connection cannot be what it says it is, beside the others. */
export function identityProblem(
  arrival: Arrival,
  arrivals: readonly Arrival[],
  channels: number | undefined,
): MultifdError | null {
  if (arrival.identity === "unknown") return null;
  const twin = arrivals.find((other) => other !== arrival && other.identity === arrival.identity);
  if (twin !== undefined) {
    const text = `two connections say that they are ${labelOf(arrival.identity)}: only one QEMU may use this socket`;
    return new MultifdError("CHANNEL_SET", text, { channel: arrival.identity });
  }
  if (typeof arrival.identity === "number" && channels !== undefined && arrival.identity >= channels) {
    const expected = channels === 0 ? "no multifd channel is" : `only channels 0 to ${channels - 1} are`;
    const text = `channel ${arrival.identity} connected, but ${expected} expected: check --channels against QEMU's multifd-channels`;
    return new MultifdError("CHANNEL_SET", text, { channel: arrival.identity, expected: channels });
  }
  if (arrival.late) {
    const text = `${labelOf(arrival.identity)} connected when the others had begun to send RAM: only one QEMU may use this socket`;
    return new MultifdError("CHANNEL_SET", text, { channel: arrival.identity });
  }
  return null;
}

/** @param how they ended */
export function withoutMain(connections: number, how: "ended" | "hung up"): MultifdError {
  const all = connections === 1 ? "the only connection" : `all ${connections} connections`;
  const text = `${all} ${how}, and none was the main channel: the migration failed at its start`;
  return new MultifdError("STREAM_INCOMPLETE", text, { connections });
}

export function tooFew(came: number, expected: number): string {
  return `the main channel ended with ${came} of ${expected} multifd channels connected: check --channels against QEMU's multifd-channels`;
}
