/** One line of `--json`, as a manager sees it: any JSON object with a name. */
export interface SeenEvent {
  readonly event: string;
  readonly time: string;
  readonly [field: string]: unknown;
}

/** null: the line is no event. */
export function parseEvent(line: string): SeenEvent | null {
  try {
    const value: unknown = JSON.parse(line);
    const isEvent = typeof value === "object" && value !== null && "event" in value && "time" in value;
    return isEvent ? (value as SeenEvent) : null;
  } catch {
    return null;
  }
}
