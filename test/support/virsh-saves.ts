import { Buffer } from "node:buffer";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { encodeLibvirtStart } from "../../src/formats/libvirt/data-area.ts";
import { domainXml, inspect, type LibvirtReport, type VerifyReport, verify } from "../../src/index.ts";

/** What libvirt's own image is, and what libvirt does with one that begins as our codec writes it. */
export interface LibvirtSaves {
  readonly report: Omit<LibvirtReport, "xml" | "cookie">;
  readonly verified: VerifyReport;
  /** What virsh and we read of the domain's XML. */
  readonly dumped: string;
  readonly xml: string;
  readonly cookie: string | null;
  /** The domain after it was restored from an image whose start we wrote. */
  readonly restored: string;
  /** The name in the XML that virsh reads of ours. */
  readonly ours: string;
}

/** Saves a domain that runs by libvirt alone, and restores it from the same stream behind a header of ours. */
export async function saveByLibvirt(
  virsh: (...args: string[]) => string,
  domain: string,
  directory: string,
): Promise<LibvirtSaves> {
  const image = path.join(directory, "libvirt.save");
  virsh("save", domain, image, "--paused");
  const report = await inspect({ image });
  if (report.format !== "libvirt") throw new Error(`libvirt wrote ${report.format}`);
  const { xml, cookie, ...rest } = report;
  const verified = await verify({ image });
  const dumped = virsh("save-image-dumpxml", image, "--security-info");
  const ours = path.join(directory, "ours.save");
  const start = encodeLibvirtStart({
    complete: true,
    running: false,
    xml: await domainXml({ image }),
    cookie,
  });
  writeFileSync(ours, Buffer.concat([start, readFileSync(image).subarray(report.streamOffset)]));
  const read = virsh("save-image-dumpxml", ours, "--security-info");
  virsh("restore", ours);
  const restored = virsh("domstate", domain, "--reason");
  virsh("destroy", domain);
  return { report: rest, verified, dumped, xml, cookie, restored, ours: read };
}
