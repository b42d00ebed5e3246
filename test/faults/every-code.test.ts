import { writeFile } from "node:fs/promises";
import { constants } from "node:os";
import { crc32 } from "node:zlib";
import { afterEach, expect, test } from "vitest";
import type { DiskRecord, ImageMetadata, VmRecord } from "../../src/formats/image/model.ts";
import { encodeSuperblock, writingSuperblock } from "../../src/formats/image/superblock.ts";
import { ERROR_CODES, type ErrorCode } from "../../src/index.ts";
import type { QemuBinary } from "../../src/vm/find-qemu.ts";
import { pickAccelerator } from "../support/accelerator.ts";
import { exampleImage, exampleMetadata } from "../support/example-image.ts";
import { largeMigration, tinyMigration } from "../support/fake-peer.ts";
import type { HelperProcess } from "../support/helper-process.ts";
import { describeEachQemu } from "../support/qemus.ts";
import { RecordingDestination } from "../support/recording-destination.ts";
import { useSaves } from "../support/save-under-test.ts";
import { useVms } from "../support/vms.ts";

const { scratch, start, listening, argsOf } = useSaves();
const vms = useVms();
const image = (): string => scratch.file("vm.mfd");

const destinations: RecordingDestination[] = [];
afterEach(() => Promise.all(destinations.splice(0).map((destination) => destination.close())));

/**
 * How the command line comes to fail with each code there is. The type demands an entry for every code: a new one does
 * not compile before there is a way to reach it.
 */
const WAYS: { readonly [Code in Exclude<ErrorCode, QemuCode>]: () => Promise<HelperProcess> } = {
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
  UNSUPPORTED_STREAM: () =>
    saved(
      tinyMigration(1, { compress: { flags: 0x08, payload: (pages) => Buffer.alloc(pages * 8, 1) } }),
      "--format",
      "mapped-ram",
    ),
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

  MANAGED_STATE: async () => start(["managed-remove", "web", "--json", "--state-dir", scratch.directory]),

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

  MONITOR_UNREACHABLE: async () => start(["save", image(), "--json", "--qmp", scratch.file("nobody")]),
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

/** The same for what takes a real QEMU: it gets one, paused or waiting for an image, with the monitor at `qmp`. */
type QemuCode =
  | "VM_STATE"
  | "QEMU_UNSUPPORTED"
  | "VM_MISMATCH"
  | "DISK_CHANGED"
  | "VM_RAN_ON"
  | "RAM_NOT_EMPTY";
const QEMU_WAYS: { readonly [Code in QemuCode]: (qemu: QemuBinary) => Promise<HelperProcess> } = {
  VM_STATE: async (qemu) => start(["save", image(), "--json", "--qmp", await waiting(qemu)]),
  QEMU_UNSUPPORTED: (qemu) =>
    driven(qemu, { capabilities: ["x-not-yet-invented"] }, "--force", "--clear-ram"),
  VM_MISMATCH: (qemu) => driven(qemu, { machine: "pc-q35-1.0" }),
  DISK_CHANGED: (qemu) => driven(qemu, { ...FITTING, vm: { ...VM, disks: [DISK] } }),
  VM_RAN_ON: (qemu) => driven(qemu, { vm: { ...VM, ranOn: true } }),
  RAM_NOT_EMPTY: async (qemu) => driven(qemu, FITTING),
};

const CODES = Object.keys(WAYS) as (keyof typeof WAYS)[];
const statusOf = (code: ErrorCode): number =>
  code === "CANCELLED" ? 128 + constants.signals.SIGTERM : ERROR_CODES[code].exitStatus;

async function expectFailure(helper: HelperProcess, code: ErrorCode): Promise<void> {
  expect(await helper.failure()).toMatchObject({ code, status: statusOf(code) });
  expect(helper.stderr.trimEnd().split("\n").at(-1)).toMatch(/^multifd-helper: \S/);
}

test.each(CODES)("%s", async (code) => {
  await expectFailure(await WAYS[code](), code);
});

describeEachQemu("with a QEMU", (qemu) => {
  test.each(Object.keys(QEMU_WAYS) as QemuCode[])("%s", async (code) => {
    await expectFailure(await QEMU_WAYS[code](qemu), code);
  });
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

const RAM_BYTES = 16 * 2 ** 20;
const VM: VmRecord = {
  uuid: exampleMetadata().vmUuid,
  accelerator: null,
  commandLine: null,
  cpuModel: null,
  cpus: 1,
  ramBytes: RAM_BYTES,
  running: true,
  ranOn: false,
  disks: [],
  devices: [],
};
const DISK: DiskRecord = {
  device: "disk0",
  node: "node0",
  file: "/vm.qcow2",
  format: "qcow2",
  readOnly: false,
  fileBytes: 196_616,
  modifiedNs: "1",
  snapshotId: null,
};
/** What waiting()'s QEMU is. */
const FITTING: Partial<ImageMetadata> = { machine: "pc-q35-7.2", ramBlocks: [] };

/** A QEMU that waits for an image, with data in its RAM's file; its monitor is at the path that is returned. */
async function waiting(binary: QemuBinary): Promise<string> {
  const qmp = scratch.file("qmp");
  const uuid = exampleMetadata().vmUuid as string;
  const { ram } = await vms.start(binary, {
    ramBytes: RAM_BYTES,
    accelerator: await pickAccelerator(binary),
    machine: "pc-q35-7.2",
    incoming: true,
    extraArgs: ["-qmp", `unix:${qmp},server=on,wait=off`, "-uuid", uuid],
  });
  await writeFile(ram.path, "data of an earlier run", { flag: "r+" });
  return qmp;
}

async function driven(
  qemu: QemuBinary,
  metadata: Partial<ImageMetadata>,
  ...options: readonly string[]
): Promise<HelperProcess> {
  await writeFile(image(), exampleImage(metadata).bytes);
  return start(["restore", image(), "--json", "--qmp", await waiting(qemu), ...options]);
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
