import { toFailure } from "../errors.ts";
import type { Answer } from "./messages.ts";

/** Runs a worker's task and answers with plain data, whatever happens. */
export async function answering<T>(work: () => Promise<T>): Promise<Answer<T>> {
  try {
    return { ok: true, value: await work() };
  } catch (error) {
    return { ok: false, failure: toFailure(error) };
  }
}
