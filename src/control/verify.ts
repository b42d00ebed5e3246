import { MultifdError } from "../errors.ts";
import type { VerifyOptions } from "./options.ts";
import type { VerifyReport } from "./reports.ts";

export async function verify(_options: VerifyOptions): Promise<VerifyReport> {
  throw new MultifdError("INTERNAL", "not built yet");
}
