import { type ImageReport, inspect, type MappedRamReport, type StreamImageReport } from "../../src/index.ts";

/** What `inspect` says of an image of streams. */
export async function inspectStream(image: string): Promise<StreamImageReport> {
  return expectFormat(await inspect({ image }), "stream");
}

/** What `inspect` says of a mapped-ram file. */
export async function inspectMapped(image: string, offset = 0): Promise<MappedRamReport> {
  return expectFormat(await inspect({ image, offset }), "mapped-ram");
}

function expectFormat<F extends ImageReport["format"]>(
  report: ImageReport,
  format: F,
): Extract<ImageReport, { format: F }> {
  if (report.format === format) return report as Extract<ImageReport, { format: F }>;
  throw new Error(`${report.path} is in the format ${report.format}`);
}
