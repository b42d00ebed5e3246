import type { DestinationNeeds, StreamImageReport } from "../index.ts";
import { type Row, section } from "./section.ts";

/** Relative, so that what is shown works as it stands when QEMU and the helper run in the same directory. */
const SOCKET = "unix:restore.sock";

/** The part of the `inspect` page that a person follows from top to bottom, with lines to copy. */
export function describeRestore(report: StreamImageReport, needs: DestinationNeeds): string {
  const [image, note] = imageArgument(report.path);
  const offset = report.base === 0 ? "" : ` --offset ${report.base}`;
  const requirements = section("To restore it", [
    ["in one step", `multifd-helper restore ${image}${offset} -- QEMU ARGUMENTS…`],
    ["or by hand", `start QEMU with ${qemuOptions(needs)}`],
    ["the rest", "devices, RAM size and accelerator as at the source, and a QMP socket"],
    ...ramRows(needs),
  ]);
  return `${requirements}
  then, by QMP (socat - unix:vm.qmp), in this order:
${copied(setUp(needs).map(jsonLine))}
  then, when migrate-incoming has returned (restore.sock lies where QEMU was started)${note}:
${copied([`multifd-helper restore ${image}${offset} --connect ${SOCKET}`])}
  then, in the same QMP session, again as long as it says active:
${copied([jsonLine({ execute: "query-migrate" })])}
  and, once it says completed, not before (after failed, end this QEMU):
${copied([jsonLine({ execute: "cont" })])}`;
}

/** What QEMU is told by hand to load a file by itself. @param capabilities none: migrate-set-capabilities is left out */
export function incomingByHand(capabilities: readonly string[], uri: string): string {
  const settings = capabilities.map((capability) => ({ capability, state: true }));
  const commands = [
    { execute: "qmp_capabilities" },
    ...(settings.length === 0
      ? []
      : [{ execute: "migrate-set-capabilities", arguments: { capabilities: settings } }]),
    { execute: "migrate-incoming", arguments: { uri } },
    { execute: "query-migrate" },
  ];
  return `  then, by QMP (socat - unix:vm.qmp), in this order (the file's path as QEMU sees it):
${copied(commands.map(jsonLine))}
  and, once query-migrate says completed, not before:
${copied([jsonLine({ execute: "cont" })])}`;
}

function qemuOptions({ machine, uuid }: DestinationNeeds): string {
  const name = machine === null ? null : quoteForShell(machine);
  return [
    name === null ? "-machine as at the source" : `-machine ${name}`,
    uuid === null ? "without -uuid" : `-uuid ${uuid}`,
    "-incoming defer -S",
  ].join(" ");
}

function ramRows({ capabilities, zeroedRam }: DestinationNeeds): Row[] {
  if (capabilities.includes("x-ignore-shared")) {
    return [
      ["RAM", "SHARED RAM IS NOT IN THIS IMAGE (x-ignore-shared): it is in the source's memory file only"],
      ["", "start QEMU with that file, unchanged since the save: not a new, zeroed or truncated one"],
    ];
  }
  const zero = "must be all zero: start QEMU afresh, and truncate a shared memory file to 0 and back before";
  return [["RAM", zeroedRam ? zero : "need not be zeroed"]];
}

/** From the start of a QMP session, which begins with qmp_capabilities. */
function setUp(needs: DestinationNeeds): object[] {
  const names = ["events", ...(needs.multifd ? ["multifd"] : []), ...needs.capabilities];
  const capabilities = names.map((capability) => ({ capability, state: true }));
  const parameters = {
    "multifd-channels": needs.multifdChannels,
    "multifd-compression": needs.multifdCompression,
  };
  return [
    { execute: "qmp_capabilities" },
    { execute: "migrate-set-capabilities", arguments: { capabilities } },
    ...(needs.multifd ? [{ execute: "migrate-set-parameters", arguments: parameters }] : []),
    { execute: "migrate-incoming", arguments: { uri: SOCKET } },
  ];
}

/** The image's path as a shell wants it, and what to add to the sentence before it. */
export function imageArgument(path: string): [argument: string, note: string] {
  // A leading dash would be taken for an option.
  const quoted = quoteForShell(path.startsWith("-") ? `./${path}` : path);
  if (quoted !== null) return [quoted, ""];
  return ["IMAGE", "; IMAGE is this image's path, whose control characters cannot be shown"];
}

/** One word for sh; null when control characters would have to be shown, which could steer the terminal. */
export function quoteForShell(word: string): string | null {
  if (/\p{Cc}/u.test(word)) return null;
  return /^[\w./:@%+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** JSON leaves DEL and the C1 control characters as they are; names from the image may have them. */
function jsonLine(command: object): string {
  const escaped = (char: string) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return JSON.stringify(command).replace(/\p{Cc}/gu, escaped);
}

function copied(lines: readonly string[]): string {
  return lines.map((line) => `    ${line}`).join("\n");
}
