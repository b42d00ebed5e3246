import type { Log } from "../../control/options.ts";
import type { MappedRamReport, RestorableReport } from "../../control/reports.ts";
import { MultifdError } from "../../errors.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import { ramBlocks } from "../ram-blocks.ts";
import type { Survey } from "../survey.ts";
import { checkBackends } from "./check-backends.ts";
import type { InstantVmOptions } from "./options.ts";

/**
 * The image as one that pages can be served from.
 * @throws MultifdError NOT_AN_IMAGE (it is one of streams), QEMU_UNSUPPORTED (not all RAM is in it), USAGE (it has no
 *   checksums, and nobody said that it may)
 */
export function servable(
  report: RestorableReport,
  { unverified = false }: Pick<InstantVmOptions, "unverified">,
): MappedRamReport {
  const { path } = report;
  if (report.format === "stream") {
    const text = `${path} is an image of streams, in which a page cannot be found; make a mapped-ram image of it first: multifd-helper convert ${path} ${path}.mapped --format mapped-ram`;
    throw new MultifdError("NOT_AN_IMAGE", text, { path });
  }
  if (report.capabilities.includes("x-ignore-shared")) {
    const text = `shared RAM is not in ${path} (x-ignore-shared), and an instant restore would empty it: restore without --instant`;
    throw new MultifdError("QEMU_UNSUPPORTED", text, { path });
  }
  if (report.checksum === "none" && !unverified) {
    const text = `${path} has no checksums, so that damage in it would reach a VM that runs: use --unverified if you accept that`;
    throw new MultifdError("USAGE", text, { path });
  }
  return report;
}

/** Devices that decide whether postcopy works, or that work differently meanwhile. */
const VFIO = /^vfio-/;
const NOTES: readonly { readonly pattern: RegExp; readonly level: "warn" | "info"; readonly note: string }[] =
  [
    {
      pattern: /^vhost-user-/,
      level: "warn",
      note: "its back end must know postcopy (the protocol feature PAGEFAULT), or QEMU refuses",
    },
    { pattern: /^virtio-mem-/, level: "info", note: "its size cannot be changed until all RAM is there" },
    { pattern: /^virtio-balloon/, level: "info", note: "inflating it has no effect until all RAM is there" },
  ];

/**
 * Whether this QEMU can take RAM while its guest runs; what is only worth knowing goes to the log. Nothing is changed.
 * @throws MultifdError QEMU_UNSUPPORTED
 */
export async function checkInstant(monitor: Monitor, { devices }: Survey, log: Log): Promise<void> {
  const types = [...new Set(devices.map(({ type }) => type))];
  const vfio = types.find((type) => VFIO.test(type));
  if (vfio !== undefined) {
    const text = `the VM has a device ${vfio}, whose hardware reads RAM by itself and cannot wait for pages: restore without --instant`;
    throw new MultifdError("QEMU_UNSUPPORTED", text, { device: vfio });
  }
  for (const type of types) {
    for (const { pattern, level, note } of NOTES) {
      if (pattern.test(type)) log[level]({ device: type }, `the VM has a device ${type}: ${note}`);
    }
  }
  await checkBackends(monitor, log);
}

const SMALL_PAGE = 4096;

/** Page sizes of the destination's blocks that lie in larger pages than usual (hugetlbfs): those must arrive whole. */
export async function hostPagesOf(monitor: Monitor): Promise<Record<string, number>> {
  const blocks = [...(await ramBlocks(monitor))];
  return Object.fromEntries(
    blocks
      .filter(([, { pageBytes }]) => pageBytes !== SMALL_PAGE)
      .map(([name, { pageBytes }]) => [name, pageBytes]),
  );
}
