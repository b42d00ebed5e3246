/** What a PROTOCOL failure at a stream offset looks like, for toMatchObject. */
export function protocolFailure(offset: number, details: Readonly<Record<string, unknown>> = {}): object {
  return { name: "MultifdError", code: "PROTOCOL", details: { offset, ...details } };
}
