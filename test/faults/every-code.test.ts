import { writeFile } from "node:fs/promises";
import { constants } from "node:os";
import { crc32 } from "node:zlib";
import { afterEach, expect, test } from "vitest";
import { encodeSuperblock, writingSuperblock } from "../../src/formats/image/superblock.ts";
import { ERROR_CODES, type ErrorCode } from "../../src/index.ts";
import { exampleImage } from "../support/example-image.ts";
import { largeMigration, tinyMigration } from "../support/fake-peer.ts";
import type { HelperProcess } from "../support/helper-process.ts";
import { RecordingDestination } from "../support/recording-destination.ts";
import { useSaves } from "../support/save-under-test.ts";

const { scratch, start, listening, argsOf } = useSaves();
const image = (): string => scratch.file("vm.mfd");

const destinations: RecordingDestination[] = [];
afterEach(() => Promise.all(destinations.splice(0).map((destination) => destination.close())));

/** The command line has no way yet to what throws QEMU_UNSUPPORTED (src/vm/engine-file). */
type ReachableCode = Exclude<ErrorCode, "QEMU_UNSUPPORTED">;

/**
 * How the command line comes to fail with each code there is. The type demands an entry for every code: a new one does
 * not compile before there is a way to reach it.
 */
const WAYS: { readonly [Code in ReachableCode]: () => Promise<HelperProcess> } = {
  INTERNAL: () => preloaded("a defect", BROKEN_RELEASE, ["capabilities", "--json"]),
  WORKER_DIED: async () => {
    await writeFile(image(), exampleImage().bytes);
    return preloaded("mortal workers", MORTAL_WORKERS, ["verify", image(), "--json"]);
  },

  USAGE: async () => start(["save", image(), "--json"]),

  PROTOCOL: () => saved([Buffer.alloc(4096, "nonsense")]),
  TLS_PEER: () => saved([Buffer.from("16030100f8010000f40303", "hex")]),
  CHANNEL_SET: () => saved(tinyMigration(3), "--channels", "2"),
  STREAM_INCOMPLETE: () => saved(tinyMigration().slice(1)),
  // The highest channel is missing, and nothing but the pages that nobody carried tells of it.
  STREAM_UNDECIDED: () => saved(tinyMigration(3, { extraRounds: 0 }).slice(0, 3)),
  ABORTED: async () => {
    const { helper } = await listening(image(), ["--hold"]);
    helper.closeStdin();
    return helper;
  },
  CONNECT_FAILED: () => restored(exampleImage().bytes, `unix:${scratch.file("nobody")}`),
  DESTINATION_CLOSED: async () => {
    const closes = { peer: 0, after: 8, all: true };
    const destination = await RecordingDestination.listen(scratch.file("in"), [], { closes });
    destinations.push(destination);
    return restored(exampleImage().bytes, destination.address);
  },

  NOT_AN_IMAGE: () => verified(Buffer.alloc(8192)),
  UNSUPPORTED_VERSION: () => verified(ofVersion(99)),
  NOT_SEALED: () => verified(encodeSuperblock(writingSuperblock(UUID, 0))),
  IMAGE_DAMAGED: () => verified(withFlippedByte(0x1000)),
  EXPECTATION_FAILED: () => restored(exampleImage().bytes, "unix:/nowhere", "--channels", "9"),

  IO: async () => start(argsOf(image(), ["--log-file", scratch.file("no/log")])),
  NO_SPACE: async () => start(argsOf(image(), ["--expect-bytes", "4000T"])),
  // Nobody makes files there, not even root.
  READ_ONLY: async () => start(argsOf("/sys/vm.mfd")),
  // A regular file of a file system that knows no O_DIRECT.
  DIRECT_IO_REFUSED: async () => start(["verify", "/proc/cpuinfo", "--direct-io", "on", "--json"]),
  TARGET_REFUSED: async () => start(argsOf(scratch.directory)),
  TARGET_BUSY: async () => {
    await listening(image());
    return start(argsOf(image(), ["--listen", `unix:${scratch.file("other")}`]));
  },
  LIMIT_EXCEEDED: () => saved(largeMigration(1, 2 ** 20), "--max-bytes", "64K"),
  LISTEN_FAILED: async () => start(argsOf(image(), ["--listen", `unix:${scratch.file("no/s")}`])),

  CONNECT_TIMEOUT: async () => start(argsOf(image(), ["--connect-timeout", "0.2"])),
  STALLED: async () => {
    const { helper, peer } = await listening(image(), ["--stall-timeout", "0.5"]);
    await peer.playWithoutEnd(tinyMigration());
    return helper;
  },

  QEMU_MISSING: async () => start(["demo", "--json", "--qemu", scratch.file("no-qemu")]),
  QEMU_FAILED: async () => {
    const broken = '#!/bin/sh\n[ "$1" = --version ] && echo "QEMU emulator version 10.0.0" && exit\nexit 1\n';
    await writeFile(scratch.file("qemu"), broken, { mode: 0o755 });
    return start(["demo", "--json", "--ram", "16M", "--qemu", scratch.file("qemu")]);
  },

  CANCELLED: async () => {
    const { helper } = await listening(image());
    helper.signal("SIGTERM");
    return helper;
  },
};

const CODES = Object.keys(WAYS) as ReachableCode[];
const statusOf = (code: ReachableCode): number =>
  code === "CANCELLED" ? 128 + constants.signals.SIGTERM : ERROR_CODES[code].exitStatus;

test.each(CODES)("%s", async (code) => {
  const helper = await WAYS[code]();
  expect(await helper.failure()).toMatchObject({ code, status: statusOf(code) });
  expect(helper.stderr.trimEnd().split("\n").at(-1)).toMatch(/^multifd-helper: \S/);
});

test("these are all exit statuses of the contract but 0", () => {
  expect(new Set(CODES.map(statusOf))).toEqual(new Set([1, 2, 3, 4, 5, 6, 7, 143]));
});

const UUID = "3f0c6a52-2f0e-4c6a-9d4e-0f3a1d1b7a10";

/** A Node whose os.release throws: what a defect anywhere in the program looks like. */
const BROKEN_RELEASE = `
  import os from "node:os";
  import { syncBuiltinESMExports } from "node:module";
  os.release = () => { throw new Error("a defect"); };
  syncBuiltinESMExports();
`;

/** A Node whose worker threads end with their first task. */
const MORTAL_WORKERS = `
  import { isMainThread, parentPort } from "node:worker_threads";
  if (!isMainThread) parentPort.on("message", () => process.exit(9));
`;

async function preloaded(name: string, module: string, args: readonly string[]): Promise<HelperProcess> {
  const file = scratch.file(`${name.replace(" ", "-")}.mjs`);
  await writeFile(file, module);
  return start(args, { shell: `export NODE_OPTIONS=--import=${file}; exec "$0" "$@"` });
}

async function saved(streams: readonly Buffer[], ...options: readonly string[]): Promise<HelperProcess> {
  const { helper, peer } = await listening(image(), options);
  await peer.play(streams);
  return helper;
}

async function verified(bytes: Uint8Array): Promise<HelperProcess> {
  await writeFile(image(), bytes);
  return start(["verify", image(), "--json"]);
}

async function restored(
  bytes: Uint8Array,
  to: string,
  ...options: readonly string[]
): Promise<HelperProcess> {
  await writeFile(image(), bytes);
  return start(["restore", image(), "--json", "--connect", to, ...options]);
}

function withFlippedByte(at: number): Buffer {
  const bytes = Buffer.from(exampleImage().bytes);
  bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
  return bytes;
}

/** The example image with another version in its superblock, and the checksum made to match. */
function ofVersion(version: number): Buffer {
  const bytes = Buffer.from(exampleImage().bytes);
  bytes.writeUInt32BE(version, 8);
  bytes.writeUInt32BE(crc32(bytes.subarray(0, 4092)), 4092);
  return bytes;
}
