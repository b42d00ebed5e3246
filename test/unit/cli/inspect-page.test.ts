import { expect, test } from "vitest";
import { describeImage } from "../../../src/cli/inspect-page.ts";
import type { ImageReport } from "../../../src/index.ts";

const UUID = "00112233-4455-6677-8899-aabbccddeeff";

const SEALED = {
  path: "vm.mfd",
  format: "stream",
  formatVersion: 1,
  sealed: true,
  imageUuid: "3f0c6a52-2f0e-4c6a-9d4e-0f3a1d1b7a10",
  created: "2026-03-01T09:30:02.000Z",
  base: 1_048_576,
  bytes: 155_189_248,
  dataBytes: 154_000_000,
  metadata: {
    writer: "multifd-helper 0.1.0",
    qemuVersion: null,
    multifdChannels: 2,
    compression: "zstd",
    machine: "pc-q35-7.2",
    vmUuid: UUID,
    pageSize: 4096,
    barrierMode: "legacy",
    capabilities: ["x-ignore-shared"],
    ramBlocks: [
      { name: "mem", usedLength: 268_435_456 },
      { name: "/rom@etc/acpi/tables", usedLength: 131_072 },
    ],
    devices: ["timer", "cpu"],
    needsZeroedRam: true,
    evidence: { verdict: "complete", decidedBy: "structure", reasons: ["every channel ended at a packet"] },
    user: { xml: "<secret/>" },
    userBinary: { blob: "/wD+" },
  },
  destination: {
    machine: "pc-q35-7.2",
    multifd: true,
    multifdChannels: 2,
    multifdCompression: "zstd",
    uuid: UUID,
    zeroedRam: true,
  },
  channels: [
    {
      channel: "main",
      bytes: 65_536,
      extents: 1,
      blocks: 1,
      blockBytes: 1_048_576,
      syncs: 3,
      checksum: "crc32",
    },
    {
      channel: 0,
      bytes: 77_000_000,
      extents: 2,
      blocks: 2,
      blockBytes: 1_048_576,
      syncs: 3,
      checksum: "crc32",
    },
    {
      channel: 1,
      bytes: 76_934_464,
      extents: 2,
      blocks: 2,
      blockBytes: 1_048_576,
      syncs: 3,
      checksum: "none",
    },
  ],
  ranges: [],
} as const satisfies ImageReport;

const qmp = (page: string) =>
  page
    .split("\n")
    .filter((line) => line.trimStart().startsWith("{"))
    .map((line) => JSON.parse(line));

test("the page of a sealed image says what it is", () => {
  expect(describeImage(SEALED)).toMatchInlineSnapshot(`
    "Image vm.mfd
      format        stream, version 1
      sealed        yes, the streams are complete; decided by their structure; every channel ended at a packet
      created       2026-03-01T09:30:02.000Z
      written by    multifd-helper 0.1.0
      image UUID    3f0c6a52-2f0e-4c6a-9d4e-0f3a1d1b7a10
      starts at     byte 1048576 of the file
      size          148.0 MiB (155189248 bytes), 146.9 MiB of it from QEMU

    Virtual machine
      machine       pc-q35-7.2
      UUID          00112233-4455-6677-8899-aabbccddeeff
      page size     4096 bytes
      capabilities  x-ignore-shared
      compression   zstd
      barriers      legacy
      devices       timer, cpu

    Channels
      main          64.0 KiB in 1 extent, blocks of 1.0 MiB, crc32, 3 barriers
      channel 0     73.4 MiB in 2 extents, blocks of 1.0 MiB, crc32, 3 syncs
      channel 1     73.4 MiB in 2 extents, blocks of 1.0 MiB, no checksums, 3 syncs

    RAM blocks
      mem                   256.0 MiB
      /rom@etc/acpi/tables  128.0 KiB

    Metadata
      xml           text, 9 B
      blob          binary, 3 B

    To restore it
      start QEMU    -machine pc-q35-7.2 -uuid 00112233-4455-6677-8899-aabbccddeeff -incoming defer -S
      the rest      devices, RAM size and accelerator as at the source
      RAM           must be all zero: start QEMU afresh, and truncate a shared memory file to 0 and back before
      then, by QMP, in this order:
        {"execute":"migrate-set-capabilities","arguments":{"capabilities":[{"capability":"events","state":true},{"capability":"multifd","state":true},{"capability":"x-ignore-shared","state":true}]}}
        {"execute":"migrate-set-parameters","arguments":{"multifd-channels":2,"multifd-compression":"zstd"}}
        {"execute":"migrate-incoming","arguments":{"uri":"unix:/PATH/OF/SOCKET"}}
      then, when migrate-incoming has returned:
        multifd-helper restore vm.mfd --offset 1048576 --connect unix:/PATH/OF/SOCKET
    "
  `);
});

test("the QMP commands set the destination up before it listens", () => {
  expect(qmp(describeImage(SEALED))).toEqual([
    {
      execute: "migrate-set-capabilities",
      arguments: {
        capabilities: [
          { capability: "events", state: true },
          { capability: "multifd", state: true },
          { capability: "x-ignore-shared", state: true },
        ],
      },
    },
    {
      execute: "migrate-set-parameters",
      arguments: { "multifd-channels": 2, "multifd-compression": "zstd" },
    },
    { execute: "migrate-incoming", arguments: { uri: "unix:/PATH/OF/SOCKET" } },
  ]);
});

test("without multifd no multifd parameter is set", () => {
  const single: ImageReport = {
    ...SEALED,
    destination: { ...SEALED.destination, multifd: false, multifdChannels: 0, multifdCompression: "none" },
  };
  expect(qmp(describeImage(single)).map(({ execute }) => execute)).toEqual([
    "migrate-set-capabilities",
    "migrate-incoming",
  ]);
  expect(describeImage(single)).not.toContain('"multifd"');
});

test("a machine without UUID and zeroed RAM is described as such", () => {
  const page = describeImage({
    ...SEALED,
    base: 0,
    destination: { ...SEALED.destination, uuid: null, zeroedRam: false },
  });
  expect(page).toContain("without -uuid");
  expect(page).toContain("need not be zeroed");
  expect(page).not.toContain("--offset");
});

test("values of metadata are not shown", () => {
  const page = describeImage(SEALED);
  expect(page).not.toContain("secret");
  expect(page).not.toContain("/wD+");
});

test("names from the image cannot steer the terminal, nor the path the shell", () => {
  const page = describeImage({
    ...SEALED,
    path: "it's.mfd",
    metadata: { ...SEALED.metadata, machine: "pc\u001b[2J\nsealed no" },
  });
  expect(page).toContain("pc\ufffd[2J\ufffdsealed no\n");
  expect(page).toContain("restore 'it'\\''s.mfd' --offset");
});

test("an unsealed image has nothing to restore", () => {
  const page = describeImage({
    ...SEALED,
    sealed: false,
    bytes: null,
    dataBytes: null,
    metadata: null,
    destination: null,
    channels: [],
  });
  expect(page).toMatch(/sealed +no: it cannot be restored/);
  expect(page).not.toContain("QMP");
});
