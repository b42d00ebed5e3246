import { inspect, type StreamImageReport } from "../../src/index.ts";

/** What `inspect` says of an image of streams. */
export async function inspectStream(image: string): Promise<StreamImageReport> {
  const report = await inspect({ image });
  if (report.format === "stream") return report;
  throw new Error(`${image} is no image of streams`);
}
