import { statSync } from "node:fs";
import { expect, test } from "vitest";
import type { MappedRamReport, StreamImageReport } from "../../../src/control/reports.ts";
import { MultifdError } from "../../../src/errors.ts";
import type { Monitor } from "../../../src/qmp/monitor.ts";
import { checkInstant, servable } from "../../../src/vm/instant/check-instant.ts";
import { dataPlaneArguments, hostPageArguments } from "../../../src/vm/instant/data-plane-arguments.ts";
import { lockHolder } from "../../../src/vm/instant/former-helper.ts";
import type { ServingOptions } from "../../../src/vm/instant/options.ts";
import { explainPostcopy } from "../../../src/vm/instant/userfault.ts";
import { parseRamBlocks } from "../../../src/vm/ram-blocks.ts";
import type { Survey } from "../../../src/vm/survey.ts";

const MAPPED = {
  path: "vm.mr",
  format: "mapped-ram",
  capabilities: ["mapped-ram"],
  checksum: "crc32",
} as unknown as MappedRamReport;

function refusal(act: () => unknown): { code: string; message: string } {
  try {
    act();
  } catch (error) {
    if (error instanceof MultifdError) return { code: error.code, message: error.message };
  }
  throw new Error("nothing was refused");
}

test("an image that pages can be served from is taken as it is", () => {
  expect(servable(MAPPED, {})).toBe(MAPPED);
  expect(servable({ ...MAPPED, checksum: "none" }, { unverified: true })).toMatchObject({ path: "vm.mr" });
});

test("one that they cannot be served from is refused with the way out", () => {
  const streams = { path: "vm.mfd", format: "stream" } as StreamImageReport;
  expect(refusal(() => servable(streams, {}))).toMatchObject({
    code: "NOT_AN_IMAGE",
    message: expect.stringContaining("multifd-helper convert vm.mfd vm.mfd.mapped --format mapped-ram"),
  });
  const shared = { ...MAPPED, capabilities: ["mapped-ram", "x-ignore-shared"] };
  expect(refusal(() => servable(shared, {}))).toMatchObject({ code: "QEMU_UNSUPPORTED" });
  expect(refusal(() => servable({ ...MAPPED, checksum: "none" }, {}))).toMatchObject({
    code: "USAGE",
    message: expect.stringContaining("--unverified"),
  });
});

/** QEMU 7.2 with a hugetlb backend, and the same line of 10.0. */
const RAMBLOCK = `              Block Name    PSize              Offset               Used              Total
                     ram    2 MiB  0x0000000000000000 0x0000000004000000 0x0000000004000000\r
    /rom@etc/acpi/tables    4 KiB  0x0000000004080000 0x0000000000020000 0x0000000000200000\r
        0000:00:01.0/big    1 GiB  0x0000000140000000 0x0000000040000000 0x0000000040000000 0x00007f3163fff000  rw
`;

test("blocks, their lengths and the size of their pages are read from info ramblock", () => {
  expect([...parseRamBlocks(RAMBLOCK)]).toEqual([
    ["ram", { usedLength: 0x4000000, pageBytes: 2 ** 21 }],
    ["/rom@etc/acpi/tables", { usedLength: 0x20000, pageBytes: 4096 }],
    ["0000:00:01.0/big", { usedLength: 2 ** 30, pageBytes: 2 ** 30 }],
  ]);
  expect(parseRamBlocks("unknown command")).toEqual(new Map());
});

function monitorOf(major: number, pid: number | null = null): Monitor {
  return { place: "/x/qmp", pid, version: { major, minor: 0, micro: 0, package: "" } } as Monitor;
}

const refused = (text: string): MultifdError =>
  new MultifdError("QEMU_FAILED", `QEMU refused it: ${text}`, { class: "GenericError", text });

test("QEMU's refusal of postcopy is told with what to do, as its version needs it", () => {
  const seven = explainPostcopy(refused("Postcopy is not supported"), monitorOf(7)) as MultifdError;
  expect(seven.code).toBe("QEMU_UNSUPPORTED");
  expect(seven.message).toMatch(/CAP_SYS_PTRACE.*sysctl vm.unprivileged_userfaultfd=1/);
  expect(seven.message).not.toContain("/dev/userfaultfd");
  const why = "Userfaultfd not available: Operation not permitted";
  const ten = explainPostcopy(refused(`Postcopy is not supported: ${why}`), monitorOf(10)) as MultifdError;
  expect(ten.message).toContain(why);
  expect(ten.message).toMatch(/read and write on \/dev\/userfaultfd.*CAP_SYS_PTRACE/);
});

test("a refusal for another reason gets no advice about rights, and another error none at all", () => {
  const text = "Postcopy is not supported: Host backend files need to be TMPFS or HUGETLBFS only";
  const told = (explainPostcopy(refused(text), monitorOf(10)) as MultifdError).message;
  expect(told).toMatch(/TMPFS or HUGETLBFS only\); change that, or restore without --instant$/);
  const other = refused("Monitor says no");
  expect(explainPostcopy(other, monitorOf(10))).toBe(other);
});

const survey = (...types: readonly string[]): Survey =>
  ({ devices: types.map((type) => ({ path: `/machine/peripheral/${type}`, type })) }) as unknown as Survey;

test("devices that read RAM by themselves are refused, and others are noted", async () => {
  const notes: string[] = [];
  const note = (_fields: object, text: string): void => void notes.push(text);
  const log = { debug: note, info: note, warn: note, error: note };
  const monitor = { ...monitorOf(10), execute: async () => [] } as unknown as Monitor;
  await expect(checkInstant(monitor, survey("vfio-pci"), log)).rejects.toMatchObject({
    code: "QEMU_UNSUPPORTED",
    message: expect.stringContaining("vfio-pci"),
  });
  await checkInstant(monitor, survey("vhost-user-blk-pci", "virtio-balloon-pci", "virtio-blk-pci"), log);
  expect(notes).toHaveLength(2);
  expect(notes.join("\n")).toMatch(/vhost-user-blk-pci.*postcopy.*\n.*virtio-balloon-pci/);
});

test("a data plane's command line says what the options say", () => {
  expect(dataPlaneArguments({ image: "vm.mr" })).toEqual([]);
  const options: ServingOptions = {
    image: "vm.mr",
    offset: 4096,
    directIo: "off",
    workers: 2,
    connectTimeoutMs: 1500,
    force: true,
    unverified: true,
    verify: "first",
    backgroundRate: 0,
    expect: { uuid: "none", machine: "pc-q35-7.2" },
  };
  expect(dataPlaneArguments(options)).toEqual([
    ...["--offset", "4096", "--direct-io", "off", "--workers", "2", "--connect-timeout", "1.5"],
    ...["--expect", "uuid=none,machine=pc-q35-7.2", "--verify", "first", "--background-rate", "0"],
    ...["--force", "--unverified"],
  ]);
  expect(hostPageArguments({ ram: 2 ** 21 })).toEqual(["--host-pages", "ram=2097152"]);
});

test("who has a file's lock is found by device and inode", () => {
  const dev = BigInt(statSync("/").dev);
  const locks = `1: POSIX  ADVISORY  WRITE 4711 fe:00:99 0 EOF
2: FLOCK  ADVISORY  READ  4712 fe:00:77 0 EOF
3: FLOCK  ADVISORY  WRITE 4713 fe:00:77 0 EOF
3: -> FLOCK  ADVISORY  WRITE 4714 fe:00:88 0 EOF
`;
  const fe00 = 0xfe00n;
  expect(lockHolder(locks, fe00, 77n)).toBe(4713);
  expect(lockHolder(locks, fe00, 99n)).toBeNull();
  expect(lockHolder(locks, fe00, 88n)).toBeNull();
  expect(lockHolder("", dev, 77n)).toBeNull();
});
