import { Buffer } from "node:buffer";
import type { LibvirtReport, QemuStreamReport } from "../index.ts";
import { formatBytes } from "./format.ts";
import { describeMappedContents, describeResumed, describeUsedUp } from "./mapped-page.ts";
import { imageArgument, incomingByHand, quoteForShell } from "./restore-page.ts";
import { type Row, section } from "./section.ts";

const VERDICTS = {
  complete: "yes, from its first byte to its last; nothing in it is checksummed",
  incomplete: "no",
  undecided: "it cannot be told",
} as const;

/** What `inspect` shows a person of a migration stream in a file. */
export function describeQemuStream(report: QemuStreamReport): string {
  const { base, dataBytes } = report;
  const file = section(`Image ${report.path}`, [
    ["format", "migration stream as QEMU sent it, which QEMU reads itself"],
    ...wholeRows(report),
    ["starts at", base === 0 ? undefined : `byte ${base} of the file`],
    ["size", `${formatBytes(dataBytes)} (${dataBytes} bytes)`],
  ]);
  return `${[file, ...describeStream(report), describeRestore(report)].join("\n\n")}\n`;
}

/** What `inspect` shows a person of an image of libvirt. The XML itself may be confidential: `--xml` prints it. */
export function describeLibvirt(report: LibvirtReport): string {
  const { contents, xml, vmUuid, cookie } = report;
  const sections = [
    describeLibvirtFile(report),
    section("Domain", [
      ["UUID", vmUuid ?? "none"],
      ["when saved", report.running ? "it ran" : "it was paused"],
      ["XML", `${formatBytes(Buffer.byteLength(xml))}, printed by inspect --xml`],
      ["cookie", cookie === null ? undefined : formatBytes(Buffer.byteLength(cookie))],
    ]),
  ];
  if (contents?.format === "qemu-stream") {
    sections.push(section("QEMU's stream", wholeRows(contents)), ...describeStream(contents));
  }
  if (contents?.format === "mapped-ram") sections.push(...describeMappedContents(contents));
  sections.push(describeLibvirtRestore(report));
  return `${sections.join("\n\n")}\n`;
}

function describeLibvirtFile(report: LibvirtReport): string {
  const {
    version,
    byteOrder,
    complete,
    base,
    imageFormat,
    streamOffset,
    bytes,
    dataBytes,
    problem,
    contents,
  } = report;
  const order = byteOrder === "little" ? "" : ", of a big-endian host";
  return section(`Image ${report.path}`, [
    ["format", `image of libvirt, version ${version}${order}`],
    ["finished", complete ? "yes, says libvirt" : "no: libvirt never finished it, and does not restore it"],
    [
      "inside",
      INSIDE[imageFormat] ?? `QEMU's stream, compressed with ${imageFormat}, and so not looked into`,
    ],
    ["problem", problem ?? undefined],
    ["used up", contents?.format === "mapped-ram" ? describeResumed(contents.resumed) : undefined],
    ["starts at", base === 0 ? undefined : `byte ${base} of the file`],
    [
      "size",
      `${formatBytes(bytes)} (${bytes} bytes), QEMU's part from byte ${streamOffset} on: ${formatBytes(dataBytes)}`,
    ],
  ]);
}

const INSIDE: Partial<Record<LibvirtReport["imageFormat"], string>> = {
  raw: "QEMU's stream as it came (raw)",
  sparse: "mapped-ram of QEMU (sparse)",
};

function wholeRows({ verdict, reasons }: QemuStreamReport): Row[] {
  return [["whole", [VERDICTS[verdict], ...reasons].join("; ")]];
}

function describeStream(report: QemuStreamReport): string[] {
  const { machine, vmUuid, pageSize, capabilities, devices, blocks, dataPages, zeroPages } = report;
  const vm = section("Virtual machine", [
    ["machine", machine ?? "unknown"],
    ["UUID", vmUuid ?? undefined],
    ["page size", `${pageSize} bytes`],
    ["capabilities", capabilities.join(", ") || undefined],
    ["devices", devices.join(", ") || undefined],
  ]);
  const heading = `RAM blocks, in ${dataPages} pages with data and ${zeroPages} of zeros`;
  return [
    vm,
    section(
      heading,
      blocks.map(({ name, usedLength }): Row => [name, formatBytes(usedLength)]),
    ),
  ];
}

function describeRestore({ path, base, machine, capabilities, verdict }: QemuStreamReport): string {
  if (verdict === "incomplete") return section("To restore it", [["", "it is not whole: use another one"]]);
  const name = machine === null ? null : quoteForShell(machine);
  const requirements = section("To restore it", [
    ["by hand", `start QEMU with -machine ${name ?? "as at the source"} -incoming defer -S`],
    ["the rest", "devices, UUID, RAM size and accelerator as at the source, and a QMP socket"],
  ]);
  const [image] = imageArgument(path);
  const uri = base === 0 ? `exec:cat ${image}` : `exec:tail -c +${base + 1} ${image}`;
  return `${requirements}\n${incomingByHand(capabilities, uri)}`;
}

function describeLibvirtRestore(report: LibvirtReport): string {
  const { path, base, complete, imageFormat, streamOffset, contents } = report;
  if (contents?.format === "mapped-ram" && contents.resumed !== null) return describeUsedUp();
  if (!complete) return section("To restore it", [["", "libvirt never finished it: use another one"]]);
  const [image] = imageArgument(path);
  const inOneStep = `multifd-helper restore ${image}${base === 0 ? "" : ` --offset ${base}`} -- QEMU ARGUMENTS…`;
  const unpack = `tail -c +${streamOffset + 1} ${image}${imageFormat === "raw" ? "" : ` | ${imageFormat} -dc`} >vm.stream`;
  return section("To restore it", [
    ["by libvirt", base === 0 ? `virsh restore ${image}` : undefined],
    ["without", imageFormat === "sparse" ? inOneStep : `take QEMU's stream out: ${unpack}`],
  ]);
}
