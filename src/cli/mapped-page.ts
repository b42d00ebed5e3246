import { Buffer } from "node:buffer";
import type { MappedRamReport } from "../index.ts";
import { formatBytes } from "./format.ts";
import { describeEvidence, shownUuid } from "./metadata-words.ts";
import { imageArgument, incomingByHand, quoteForShell } from "./restore-page.ts";
import { type Row, section } from "./section.ts";
import { describeSavedVm } from "./vm-page.ts";

const SEALS = {
  "none of multifd-helper":
    "it has no seal of ours: QEMU or another program wrote it, and nothing says that it is whole",
  "never finished": "no: it was never finished",
} as const;

/** What `inspect` shows a person of a mapped-ram file. */
export function describeMapped(report: MappedRamReport): string {
  const saved = describeSavedVm(report.metadata);
  const sections = [describeFile(report), describeVm(report), ...saved, describeRam(report)];
  sections.push(...describeUserData(report), describeRestore(report));
  return `${sections.join("\n\n")}\n`;
}

/** The part of the page that is about the VM, for a file that has more around it. */
export function describeMappedContents(report: MappedRamReport): string[] {
  return [describeVm(report), describeRam(report)];
}

function describeFile(report: MappedRamReport): string {
  const { bytes, dataBytes, metadata, checksum } = report;
  const size = bytes === null ? "" : `${formatBytes(bytes)} (${bytes} bytes), `;
  return section(`Image ${report.path}`, [
    ["format", "mapped-ram, which QEMU 9.0 and later reads itself"],
    ["sealed", report.seal === "sealed" ? `yes, ${describeEvidence(metadata)}` : SEALS[report.seal]],
    ["checksums", report.sealed ? checksum : undefined],
    ["created", report.created ?? undefined],
    ["written by", metadata?.writer],
    ["image UUID", report.imageUuid ?? undefined],
    ["starts at", report.base === 0 ? undefined : `byte ${report.base} of the file`],
    ["size", `${size}${formatBytes(dataBytes)} of data`],
    ["used up", describeResumed(report.resumed)],
  ]);
}

/** Of an image that an instant restore let run. */
export function describeResumed(resumed: MappedRamReport["resumed"]): string | undefined {
  if (resumed === null) return undefined;
  if (resumed.at === null)
    return "an instant restore left a mark that cannot be read: its VM counts as resumed";
  const by = resumed.qemu === null ? "" : ` by QEMU, process ${resumed.qemu.pid}`;
  const end =
    resumed.completed === null ? "not complete, as far as is known" : `complete at ${resumed.completed}`;
  return `its VM was let run at ${resumed.at}${by}, and its disks moved on; that restore is ${end}`;
}

/** In place of how to restore it. */
export function describeUsedUp(): string {
  return section("To restore it", [
    ["", "not any more: its VM's disks have moved on, which QEMU and libvirt themselves would not notice"],
  ]);
}

function describeVm({ machine, metadata, pageSize, capabilities }: MappedRamReport): string {
  return section("Virtual machine", [
    ["machine", machine],
    ["UUID", metadata === null ? undefined : shownUuid(metadata)],
    ["page size", `${pageSize} bytes`],
    ["capabilities", capabilities.join(", ")],
    ["devices", metadata?.devices.join(", ")],
  ]);
}

function describeRam({ blocks, pageSize }: MappedRamReport): string {
  return section(
    "RAM blocks",
    blocks.map(({ name, usedLength, presentPages }): Row => {
      return [name, `${formatBytes(usedLength)}, ${formatBytes(presentPages * pageSize)} of it not zero`];
    }),
  );
}

/** Keys and sizes only: a value may be a whole domain definition, and it may be confidential. */
function describeUserData({ metadata }: MappedRamReport): string[] {
  const rows = [
    ...Object.entries(metadata?.user ?? {}).map(
      ([key, text]): Row => [key, `text, ${formatBytes(Buffer.byteLength(text))}`],
    ),
    ...Object.entries(metadata?.userBinary ?? {}).map(
      ([key, base64]): Row => [key, `binary, ${formatBytes(Buffer.byteLength(base64, "base64"))}`],
    ),
  ];
  return rows.length === 0 ? [] : [section("Metadata", rows)];
}

function describeRestore({ machine, capabilities, path, base, seal, resumed }: MappedRamReport): string {
  if (resumed !== null) return describeUsedUp();
  const machineName = quoteForShell(machine) ?? "as at the source";
  const [image] = imageArgument(path);
  const offset = base === 0 ? "" : ` --offset ${base}`;
  const requirements = section("To restore it", [
    [
      "in one step",
      seal === "never finished" ? undefined : `multifd-helper restore ${image}${offset} -- QEMU ARGUMENTS…`,
    ],
    ["", seal === "never finished" ? undefined : "any QEMU, 7.2 or later; its RAM need not be zero"],
    ["or by hand", `start QEMU with -machine ${machineName} -incoming defer -S`],
    [
      "the rest",
      "QEMU 9.0 or later; devices, UUID, RAM size and accelerator as at the source, and a QMP socket",
    ],
    ["RAM", "must be all zero: start QEMU afresh, and truncate a shared memory file to 0 and back before"],
  ]);
  const uri = `file:${path}${base === 0 ? "" : `,offset=${base}`}`;
  return `${requirements}\n${incomingByHand(["events", ...capabilities], uri)}`;
}
