import { homedir } from "node:os";
import { join, relative } from "node:path";
import type { DemoStep } from "../demo/demo.ts";
import type { ChannelFigures, CompletedEvent } from "../index.ts";
import { formatBytes, formatDuration, formatRate } from "./format.ts";

/** More channels than this are told as a range: nobody reads 255 lines. */
const LISTED_CHANNELS = 16;

/** A finished step of the demo as a person reads it: lines for 80 columns, without a newline at the end. */
export function describeStep(step: DemoStep): string {
  switch (step.step) {
    case "planned":
      return describePlan(step);
    case "filled":
      return row("filled", `RAM with random, patterned and zero pages in ${formatDuration(step.elapsedMs)}`);
    case "started":
      return row("started", `the first QEMU, paused, in ${formatDuration(step.elapsedMs)}`);
    case "saved":
      return describeSave(step);
    case "verified": {
      const { blocks, checked, elapsedMs } = step.result;
      return row("verified", `${checked} of ${blocks} blocks in ${formatDuration(elapsedMs)}, without a VM`);
    }
    case "restored":
      return [
        row("restored", speed(step.result)),
        more("into a second QEMU, which calls the migration completed"),
        ...channelRows(step.result),
      ].join("\n");
    case "compared": {
      const { pages, differing } = step.result;
      const found = differing === 0 ? "all identical" : `${differing} DIFFER`;
      return row("compared", `${pages} pages of RAM in ${formatDuration(step.elapsedMs)}: ${found}`);
    }
    case "cleaned":
      return row("cleaned up", "both QEMUs have ended; their RAM and the image are gone");
  }
}

/** What goes on once this step is done; save, verify and restore show their own progress soon after. */
export function doingAfter({ step }: DemoStep): string {
  switch (step) {
    case "planned":
      return "filling the guest's RAM";
    case "filled":
      return "starting QEMU";
    case "started":
      return "saving";
    case "saved":
      return "verifying the image";
    case "verified":
      return "starting a second QEMU and restoring into it";
    case "restored":
      return "comparing both RAMs";
    case "compared":
      return "cleaning up";
    case "cleaned":
      return "";
  }
}

function describePlan({ qemu, accelerator, ...plan }: Extract<DemoStep, { step: "planned" }>): string {
  const speedNote = accelerator === "kvm" ? "KVM" : "TCG, as KVM cannot be used here";
  const { ramDirectory, imageDirectory } = plan;
  const ramNote = ramDirectory.inMemory ? [] : [more("a disk, as no memory has room: slower than RAM")];
  const imageNote = imageDirectory.inMemory
    ? "in memory: no test of a disk or of O_DIRECT"
    : "a real disk: in memory, O_DIRECT would mean nothing";
  return [
    row("QEMU", `${qemu.version} with ${speedNote}`),
    more(fromHome(qemu.path)),
    row("guest", `${formatBytes(plan.ramBytes)} of RAM, ${plan.channels} multifd channels and main`),
    row("RAM in", `${ramDirectory.reason}; needed twice, to compare`),
    ...ramNote,
    row("image in", imageDirectory.reason),
    more(imageNote),
    "",
  ].join("\n");
}

function describeSave({ result, diskBytes }: Extract<DemoStep, { step: "saved" }>): string {
  const { image } = result;
  const how = image.directIo
    ? "written with O_DIRECT"
    : "through the page cache: this file system refuses O_DIRECT";
  return [
    row("saved", speed(result)),
    more(`${how}, flushed, sealed`),
    ...channelRows(result),
    row(
      "image",
      `${formatBytes(image.bytes)}, ${formatBytes(diskBytes)} on disk, of a ${image.machine} machine`,
    ),
  ].join("\n");
}

function speed({ bytes, elapsedMs }: CompletedEvent): string {
  const rate = formatRate((bytes * 1000) / Math.max(elapsedMs, 1));
  return `${formatBytes(bytes)} in ${formatDuration(elapsedMs)}, ${rate}`;
}

function channelRows({ channels }: CompletedEvent): string[] {
  if (channels.length <= LISTED_CHANNELS + 1) return channels.map(channelRow);
  const [main, ...others] = channels;
  const range = (values: readonly number[], format: (value: number) => string): string =>
    `${format(Math.min(...values))} to ${format(Math.max(...values))}`;
  const sizes = range(
    others.map(({ bytes }) => bytes),
    formatBytes,
  );
  const rates = range(
    others.map(({ bytesPerSecond }) => bytesPerSecond),
    formatRate,
  );
  return [
    ...(main === undefined ? [] : [channelRow(main)]),
    more(`channels 0 to ${others.length - 1}`),
    more(`  each ${sizes}, ${rates}`),
  ];
}

function channelRow({ channel, bytes, bytesPerSecond }: ChannelFigures): string {
  const name = channel === "main" ? "main" : `channel ${channel}`;
  return more(
    `${name.padEnd(12)}${formatBytes(bytes).padStart(10)}${formatRate(bytesPerSecond).padStart(14)}`,
  );
}

/** Paths below the home directory as shells write them: short enough for a line. */
function fromHome(path: string): string {
  const below = relative(homedir(), path);
  return below.startsWith("..") ? path : join("~", below);
}

function row(label: string, text: string): string {
  return `${label.padEnd(LABEL)}${text}`;
}

/** A line that belongs to the row above. */
function more(text: string): string {
  return row("", text);
}

const LABEL = 12;
