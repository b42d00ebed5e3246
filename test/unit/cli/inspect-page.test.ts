import { execFileSync } from "node:child_process";
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
    capabilities: [],
    ramBlocks: [
      { name: "mem", usedLength: 268_435_456 },
      { name: "/rom@etc/acpi/tables", usedLength: 131_072 },
    ],
    devices: ["timer", "cpu"],
    needsZeroedRam: true,
    evidence: { verdict: "complete", decidedBy: "structure", reasons: ["every channel ended at a packet"] },
    vm: null,
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
    capabilities: [],
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

const SHARED: ImageReport = {
  ...SEALED,
  metadata: { ...SEALED.metadata, capabilities: ["x-ignore-shared"], needsZeroedRam: false },
  destination: { ...SEALED.destination, capabilities: ["x-ignore-shared"], zeroedRam: false },
};

test("a VM that QMP described is shown as it was saved, with a command line to copy", () => {
  const disk = { device: "disk0", node: "#block1", fileBytes: 512, modifiedNs: "1", snapshotId: null };
  const vm = {
    ...{ uuid: null, accelerator: "kvm", cpuModel: "qemu64-x86_64-cpu", cpus: 2, ramBytes: 268_435_456 },
    ...{ running: true, ranOn: true, devices: [{ path: "/machine/peripheral/net0", type: "e1000" }] },
    commandLine: ["qemu-system-x86_64", "-name", "my vm\u001b[31m"],
    disks: [{ ...disk, file: "/srv/vm.qcow2", format: "qcow2", readOnly: false }],
  };
  const page = describeImage({ ...SEALED, metadata: { ...SEALED.metadata, qemuVersion: "10.0.2", vm } });
  expect(page).toContain(`
As it was saved
  QEMU          10.0.2
  command line  qemu-system-x86_64 -name my vm\ufffd[31m
  UUID          none
  accelerator   kvm
  CPUs          2 of type qemu64-x86_64-cpu
  RAM           256.0 MiB
  devices       e1000
  disk          disk0: /srv/vm.qcow2, qcow2
  state         it ran, and ran on afterwards: its disks may not fit any more

Channels
`);
});

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
      in one step   multifd-helper restore vm.mfd --offset 1048576 -- QEMU ARGUMENTS…
      or by hand    start QEMU with -machine pc-q35-7.2 -uuid 00112233-4455-6677-8899-aabbccddeeff -incoming defer -S
      the rest      devices, RAM size and accelerator as at the source, and a QMP socket
      RAM           must be all zero: start QEMU afresh, and truncate a shared memory file to 0 and back before
      then, by QMP (socat - unix:vm.qmp), in this order:
        {"execute":"qmp_capabilities"}
        {"execute":"migrate-set-capabilities","arguments":{"capabilities":[{"capability":"events","state":true},{"capability":"multifd","state":true}]}}
        {"execute":"migrate-set-parameters","arguments":{"multifd-channels":2,"multifd-compression":"zstd"}}
        {"execute":"migrate-incoming","arguments":{"uri":"unix:restore.sock"}}
      then, when migrate-incoming has returned (restore.sock lies where QEMU was started):
        multifd-helper restore vm.mfd --offset 1048576 --connect unix:restore.sock
      then, in the same QMP session, again as long as it says active:
        {"execute":"query-migrate"}
      and, once it says completed, not before (after failed, end this QEMU):
        {"execute":"cont"}
    "
  `);
});

test("the QMP commands are a whole session: set up, let in, look and go on", () => {
  expect(qmp(describeImage(SHARED))).toEqual([
    { execute: "qmp_capabilities" },
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
    { execute: "migrate-incoming", arguments: { uri: "unix:restore.sock" } },
    { execute: "query-migrate" },
    { execute: "cont" },
  ]);
});

test("without multifd no multifd parameter is set", () => {
  const single: ImageReport = {
    ...SEALED,
    destination: { ...SEALED.destination, multifd: false, multifdChannels: 0, multifdCompression: "none" },
  };
  expect(qmp(describeImage(single)).map(({ execute }) => execute)).toEqual([
    "qmp_capabilities",
    "migrate-set-capabilities",
    "migrate-incoming",
    "query-migrate",
    "cont",
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

test("an image without shared RAM says so, and lets nobody believe in fresh or zeroed RAM", () => {
  const page = describeImage(SHARED);
  expect(page).toMatch(/RAM +SHARED RAM IS NOT IN THIS IMAGE \(x-ignore-shared\)/);
  expect(page).toContain("that file, unchanged since the save");
  expect(page).toContain("RAM blocks (the contents of shared ones are not in this image)");
  expect(page).not.toContain("need not be zeroed");
  expect(page).not.toContain("afresh");
  expect(describeImage(SEALED)).not.toContain("shared ones");
});

test("values of metadata are not shown", () => {
  const page = describeImage(SEALED);
  expect(page).not.toContain("secret");
  expect(page).not.toContain("/wD+");
});

test("names from the image cannot steer the terminal", () => {
  const machine = "pc\u001b[2J\nsealed no";
  const page = describeImage({
    ...SEALED,
    metadata: { ...SEALED.metadata, machine },
    destination: { ...SEALED.destination, machine, capabilities: ["x\u009b2J"] },
  });
  expect(page).toContain("pc\ufffd[2J\ufffdsealed no\n");
  expect(page).toContain("-machine as at the source -uuid");
  expect(page).not.toMatch(/(?!\n)\p{Cc}/u);
  expect(qmp(page)[1].arguments.capabilities[2].capability).toBe("x\u009b2J");
});

/** What sh makes of the arguments of the command that restores. */
function restoreArguments(report: ImageReport): string[] {
  const command = /^ +multifd-helper (.*)$/m.exec(describeImage(report))?.[1];
  const printed = execFileSync("sh", ["-c", `printf '%s\\n' ${command}`], { encoding: "utf8" });
  return printed.trimEnd().split("\n");
}

test.each([
  "it's a $(touch x) `vm`.mfd",
  "a;b&c|d>e",
  "*?[a]",
  "~root/#1\\",
  '"vm"!.mfd',
  "größe.mfd",
  "a=b",
])("a shell reads the path %s as it is", (path) => {
  const rest = ["--offset", "1048576", "--connect", "unix:restore.sock"];
  expect(restoreArguments({ ...SEALED, path })).toEqual(["restore", path, ...rest]);
});

test("a path that begins with a dash is not taken for an option", () => {
  expect(restoreArguments({ ...SEALED, path: "-f.mfd" })[1]).toBe("./-f.mfd");
});

test("a machine type goes through the shell as it is", () => {
  const destination = { ...SEALED.destination, machine: "pc; reboot" };
  expect(describeImage({ ...SEALED, destination })).toContain("-machine 'pc; reboot' -uuid");
});

test("a path with control characters is not shown wrong, but not at all", () => {
  const page = describeImage({ ...SEALED, path: "vm\n.mfd" });
  expect(page).toContain("multifd-helper restore IMAGE --offset");
  expect(page).toContain("; IMAGE is this image's path, whose control characters cannot be shown:");
  expect(page).not.toContain("restore vm");
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
