import { MultifdError } from "../errors.ts";
import type { InspectOptions } from "./options.ts";
import type { ImageReport } from "./reports.ts";

export async function inspect(_options: InspectOptions): Promise<ImageReport> {
  throw new MultifdError("INTERNAL", "not built yet");
}
