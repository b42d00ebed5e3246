import { availableParallelism, release } from "node:os";
import type { Command } from "commander";
import { CONTRACT_VERSION, VERSION } from "../../version.ts";
import { MAX_CHANNELS } from "../expect.ts";
import { MAX_META_BYTES } from "../meta.ts";
import type { Output } from "../output.ts";

/** What a manager probes before it relies on something: docs/manager-contract.md, "Probing". */
interface Capabilities {
  readonly program: "multifd-helper";
  readonly version: string;
  readonly contract: number;
  readonly commands: readonly string[];
  readonly formats: readonly string[];
  /** What convert makes. */
  readonly converts: readonly string[];
  readonly checksums: readonly string[];
  readonly directIo: readonly string[];
  /** Kinds of addresses. */
  readonly listen: readonly string[];
  readonly connect: readonly string[];
  /** Options and behaviours beyond contract 1's minimum; a name stays once it is there. */
  readonly features: readonly string[];
  readonly limits: { readonly maxChannels: number; readonly maxMetaBytes: number };
  readonly platform: {
    readonly node: string;
    readonly os: string;
    readonly kernel: string;
    readonly arch: string;
    readonly cores: number;
  };
}

const FEATURES = [
  "allow-uid",
  "clear-ram",
  "compression",
  "detach",
  "die-with-parent",
  "discard-backlog",
  "engine-file",
  "expect",
  "expect-bytes",
  "hold",
  "image-fd",
  "inspect-xml",
  "instant",
  "launch",
  "live",
  "mapped-restore",
  "mapped-save",
  "max-bytes",
  "meta",
  "meta-file",
  "offset",
  "qmp",
  "rate",
  "recover",
  "replace",
  "resume",
  "stall-timeout",
  "then",
  "uuid",
  "verify-first",
  "virsh",
] as const;

const EXAMPLE = `
Example:
  multifd-helper capabilities --json`;

export function addCapabilitiesCommand(program: Command, output: Output): void {
  program
    .command("capabilities")
    .description("Tells what this version can do, for managers that probe.")
    .option("--json", "write one JSON object to stdout and nothing else")
    .addHelpText("after", EXAMPLE)
    .action(async () => {
      const capabilities = describeCapabilities(program.commands.map((command) => command.name()));
      await output.answer(capabilities, describeForPeople(capabilities));
    });
}

function describeCapabilities(commands: readonly string[]): Capabilities {
  return {
    program: "multifd-helper",
    version: VERSION,
    contract: CONTRACT_VERSION,
    commands,
    formats: ["stream", "mapped-ram"],
    converts: ["stream", "mapped-ram", "libvirt"],
    checksums: ["crc32", "none"],
    directIo: ["auto", "on", "off"],
    listen: ["unix", "tcp", "fd"],
    connect: ["unix", "tcp"],
    features: FEATURES,
    limits: { maxChannels: MAX_CHANNELS, maxMetaBytes: MAX_META_BYTES },
    platform: {
      node: process.version,
      os: process.platform,
      kernel: release(),
      arch: process.arch,
      cores: availableParallelism(),
    },
  };
}

function describeForPeople(c: Capabilities): string {
  const { node, os, kernel, arch, cores } = c.platform;
  return `multifd-helper ${c.version} (contract ${c.contract})
  commands   ${c.commands.join(", ")}
  formats    ${c.formats.join(", ")}
  checksums  ${c.checksums.join(", ")}
  listen     ${c.listen.join(", ")}
  connect    ${c.connect.join(", ")}
  features   ${c.features.join(", ")}
  limits     ${c.limits.maxChannels} channels, ${c.limits.maxMetaBytes} bytes of metadata
  platform   node ${node}, ${os} ${kernel} ${arch}, ${cores} cores
`;
}
