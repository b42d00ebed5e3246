import { MultifdError } from "../errors.ts";
import type { CompletedEvent } from "./events.ts";
import type { SaveOptions } from "./options.ts";

export async function save(_options: SaveOptions): Promise<CompletedEvent> {
  throw new MultifdError("INTERNAL", "not built yet");
}
