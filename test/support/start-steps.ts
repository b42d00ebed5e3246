import type { FaultSpec } from "./fault-spec.ts";

export type Step = Pick<FaultSpec, "call" | "with" | "nth">;

/** The n-th call of a function with this text in an argument. */
export const at = (call: FaultSpec["call"], text?: string, nth = 1): Step => ({
  call,
  nth,
  ...(text === undefined ? {} : { with: text }),
});

export type StartStep =
  | "rename"
  | "directory flushed after the rename"
  | "word to the guardian"
  | "cont"
  | "guardian dismissed"
  | "removal"
  | "directory flushed after the removal";

/** The steps of a start from a managed image, in their order, from the restored and paused VM on. */
export const START: Readonly<Record<StartStep, Step>> = {
  rename: at("renameSync", ".mfd.resuming"),
  "directory flushed after the rename": at("fsyncSync"),
  "word to the guardian": at("send", "let run"),
  cont: at("send", '"cont"'),
  "guardian dismissed": at("send", "dismissed"),
  removal: at("unlinkSync", ".mfd.resuming"),
  "directory flushed after the removal": at("fsyncSync", undefined, 2),
};
