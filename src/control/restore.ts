import { MultifdError } from "../errors.ts";
import type { CompletedEvent } from "./events.ts";
import type { RestoreOptions } from "./options.ts";

export async function restore(_options: RestoreOptions): Promise<CompletedEvent> {
  throw new MultifdError("INTERNAL", "not built yet");
}
