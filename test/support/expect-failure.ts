import { MultifdError } from "../../src/errors.ts";

/** What a PROTOCOL failure at a stream offset looks like, for toMatchObject. */
export function protocolFailure(offset: number, details: Readonly<Record<string, unknown>> = {}): object {
  return { name: "MultifdError", code: "PROTOCOL", details: { offset, ...details } };
}

/** The typed error with which a call fails; null where it does not. Anything else that is thrown is a defect. */
export async function failureOf(call: Promise<unknown>): Promise<MultifdError | null> {
  try {
    await call;
    return null;
  } catch (error) {
    if (error instanceof MultifdError) return error;
    throw error;
  }
}
