import type { ImageMetadata } from "../formats/image/model.ts";
import { formatBytes } from "./format.ts";
import { quoteForShell } from "./restore-page.ts";
import { type Row, section } from "./section.ts";

type Vm = NonNullable<ImageMetadata["vm"]>;

/** What `inspect` shows of the VM that QMP described: what a destination is compared with. Empty where nobody asked QEMU. */
export function describeSavedVm(metadata: ImageMetadata | null): string[] {
  const vm = metadata?.vm ?? null;
  if (vm === null) return [];
  const rows: Row[] = [
    ["QEMU", metadata?.qemuVersion ?? undefined],
    ["command line", vm.commandLine?.map(word).join(" ")],
    ["UUID", vm.uuid ?? "none"],
    ["accelerator", vm.accelerator ?? undefined],
    ["CPUs", `${vm.cpus}${vm.cpuModel === null ? "" : ` of type ${vm.cpuModel}`}`],
    ["RAM", formatBytes(vm.ramBytes)],
    ["devices", vm.devices.map(({ type }) => type).join(", ") || undefined],
    ...vm.disks.map((disk): Row => ["disk", describeDisk(disk)]),
    ["state", stateOf(vm)],
  ];
  return [section("As it was saved", rows)];
}

/** Control characters are shown as U+FFFD, so that such a word is not one to copy. */
function word(text: string): string {
  return quoteForShell(text) ?? text;
}

function describeDisk({ device, file, format, readOnly }: Vm["disks"][number]): string {
  return `${device}: ${file ?? "no file of this host"}, ${format}${readOnly ? ", read-only" : ""}`;
}

function stateOf({ running, ranOn }: Vm): string {
  const before = running ? "it ran" : "it was paused";
  return ranOn ? `${before}, and ran on afterwards: its disks may not fit any more` : before;
}
