import { execFile } from "node:child_process";
import { mkdtemp, open, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Monitor } from "../../src/qmp/monitor.ts";
import { ascii, assemble, type Code, label, u16, u32 } from "./assembly.ts";
import { linesOf } from "./serial-log.ts";

/** Where the BIOS loads the sector and jumps to. */
const ORIGIN = 0x7c00;
const SECTOR = 512;
/** Enough for the BIOS to see a disk. */
const DISK_BYTES = 2 ** 20;

/** Physical address of the counter: 4 bytes, little-endian, at the start of the sector that goes to disk. */
export const COUNTER_ADDRESS = 0x10000;
/** The sector of a disk that the counter is written to. */
const COUNTER_SECTOR = 1;
/** The first of the BIOS's hard disks, and the one that the guest is booted from. */
const FIRST_DRIVE = 0x80;

export interface CountingGuestOptions {
  /**
   * How many of the machine's disks, in the BIOS's order, get each count: 0 if absent, at most 2. A count is in memory first,
   * then on the first disk, then on the second; so at any instant memory >= first >= second >= memory - 1.
   */
  readonly disks?: 0 | 1 | 2;
  /** Empty loop turns per count; 1000 if absent, so that it takes many minutes to use up 32 bits. */
  readonly spin?: number;
  /** A line on the serial port whenever the counter is a multiple of this, a power of two; 64 if absent. */
  readonly lineEvery?: number;
}

/**
 * A raw disk image whose boot sector counts for ever. Each count is in RAM, on the disks if asked for, and now and then on
 * the first serial port as `count 0012ab00`, hexadecimal. It stays in real mode, where the BIOS writes to any disk that
 * it can boot from: AHCI, IDE or virtio. When a disk refuses, it says `disk error` and counts no further.
 */
export function countingDisk(options: CountingGuestOptions = {}): Buffer {
  const { disks = 0, spin = 1000, lineEvery = 64 } = options;
  if (lineEvery < 1 || (lineEvery & (lineEvery - 1)) !== 0)
    throw new RangeError(`${lineEvery} is no power of 2`);
  const code = assemble(ORIGIN, [
    ...begin,
    ...count(disks),
    ...rest(spin),
    ...report(lineEvery),
    ...subroutines,
  ]);
  if (code.length > SECTOR - 2) throw new RangeError(`${code.length} bytes do not fit into a boot sector`);
  const disk = Buffer.alloc(DISK_BYTES);
  disk.set(code);
  disk.set(u16(0xaa55), SECTOR - 2); // the BIOS boots nothing without it
  return disk;
}

/** Intel syntax beside the bytes. Segment es is the counter's, all others are 0. */
const begin: readonly Code[] = [
  [0x31, 0xc0], // xor ax, ax
  [0x8e, 0xd8], // mov ds, ax
  [0x8e, 0xd0], // mov ss, ax
  [0xbc, ...u16(ORIGIN)], // mov sp, ORIGIN
  [0xb8, ...u16(COUNTER_ADDRESS >>> 4)], // mov ax, COUNTER_ADDRESS / 16
  [0x8e, 0xc0], // mov es, ax
  [0x66, 0x26, 0xc7, 0x06, ...u16(0), ...u32(0)], // mov dword [es:0], 0
];

/** The count, then the same sector of memory to each disk. */
function count(disks: number): Code[] {
  return [
    label("count"),
    [0x66, 0x26, 0xff, 0x06, ...u16(0)], // inc dword [es:0]
    [0xb2, FIRST_DRIVE], // mov dl, FIRST_DRIVE
    label("disk"),
    [0x80, 0xfa, FIRST_DRIVE + disks], // cmp dl, FIRST_DRIVE + disks
    { opcode: [0x0f, 0x83], distanceTo: "rest" }, // jae rest
    { opcode: [0xbe], addressOf: "packet" }, // mov si, packet
    [0xb8, ...u16(0x4300)], // mov ax, 0x4300       ; extended write
    [0x52], // push dx
    [0xcd, 0x13], // int 0x13
    [0x5a], // pop dx
    { opcode: [0x0f, 0x82], distanceTo: "failed" }, // jc failed
    [0xfe, 0xc2], // inc dl
    { opcode: [0xe9], distanceTo: "disk" }, // jmp disk
  ];
}

function rest(spin: number): Code[] {
  return [
    label("rest"),
    [0x66, 0xb9, ...u32(spin + 1)], // mov ecx, spin + 1
    [0x66, 0x49], // dec ecx
    [0x75, 0xfc], // jnz -4
  ];
}

function report(lineEvery: number): Code[] {
  return [
    [0x66, 0x26, 0xa1, ...u16(0)], // mov eax, [es:0]
    [0x66, 0xa9, ...u32(lineEvery - 1)], // test eax, lineEvery - 1
    { opcode: [0x0f, 0x85], distanceTo: "count" }, // jnz count
    [0x66, 0x89, 0xc3], // mov ebx, eax
    { opcode: [0xbe], addressOf: "said" }, // mov si, said
    { opcode: [0xe8], distanceTo: "say" }, // call say
    [0xb9, ...u16(8)], // mov cx, 8             ; hexadecimal digits
    label("digit"),
    [0x66, 0xc1, 0xc3, 0x04], // rol ebx, 4
    [0x88, 0xd8], // mov al, bl
    [0x24, 0x0f], // and al, 15
    [0x3c, 0x0a], // cmp al, 10
    [0x72, 0x02], // jb +2
    [0x04, 0x27], // add al, 'a' - '0' - 10
    [0x04, 0x30], // add al, '0'
    { opcode: [0xe8], distanceTo: "send" }, // call send
    [0x49], // dec cx
    { opcode: [0x0f, 0x85], distanceTo: "digit" }, // jnz digit
    { opcode: [0xbe], addressOf: "line-end" }, // mov si, line-end
    { opcode: [0xe8], distanceTo: "say" }, // call say
    { opcode: [0xe9], distanceTo: "count" }, // jmp count
  ];
}

const subroutines: readonly Code[] = [
  label("failed"),
  { opcode: [0xbe], addressOf: "error" }, // mov si, error
  { opcode: [0xe8], distanceTo: "say" }, // call say
  [0xf4], // hlt
  [0xeb, 0xfd], // jmp -3

  label("say"), // the text at si, up to its NUL
  [0xfc], // cld
  [0xac], // lodsb
  [0x84, 0xc0], // test al, al
  [0x74, 0x05], // jz +5
  { opcode: [0xe8], distanceTo: "send" }, // call send
  [0xeb, 0xf6], // jmp -10
  [0xc3], // ret

  label("send"), // the character in al
  [0x88, 0xc4], // mov ah, al
  [0xba, ...u16(0x3fd)], // mov dx, 0x3fd         ; line status
  [0xec], // in al, dx
  [0xa8, 0x20], // test al, 0x20         ; ready for the next one
  [0x74, 0xfb], // jz -5
  [0xb2, 0xf8], // mov dl, 0xf8          ; data
  [0x88, 0xe0], // mov al, ah
  [0xee], // out dx, al
  [0xc3], // ret

  label("packet"), // of int 0x13: its own size, one sector, from where in memory, to where on the disk
  [...u16(16), ...u16(1), ...u16(0), ...u16(COUNTER_ADDRESS >>> 4), ...u32(COUNTER_SECTOR), ...u32(0)],
  label("said"),
  [...ascii("count "), 0],
  label("line-end"),
  [...ascii("\r\n"), 0],
  label("error"),
  [...ascii("disk error\r\n"), 0],
];

/** The counts that the guest told on its serial port, in the order told. Throws if any line is something else. */
export function countsTold(serial: string): number[] {
  return linesOf(serial).map((line) => {
    const count = /^count ([0-9a-f]{8})$/.exec(line)?.[1];
    if (count === undefined) throw new Error(`the guest said "${line}"`);
    return Number.parseInt(count, 16);
  });
}

/** The counter in a file that is the guest's RAM. */
export async function counterInRam(path: string): Promise<number> {
  const file = await open(path);
  try {
    const { buffer } = await file.read(Buffer.alloc(4), 0, 4, COUNTER_ADDRESS);
    return buffer.readUInt32LE();
  } finally {
    await file.close();
  }
}

/** The counter in the memory of any VM, whatever its RAM is made of and whether it runs or not. */
export async function counterByMonitor(qmp: Monitor): Promise<number> {
  const answer = await qmp.execute("human-monitor-command", { "command-line": `xp /1wx ${COUNTER_ADDRESS}` });
  const value = /: 0x([0-9a-f]{8})/.exec(String(answer))?.[1];
  if (value === undefined) throw new Error(`QEMU does not tell the counter: ${answer}`);
  return Number.parseInt(value, 16);
}

/** The counter on a disk, overlays seen through. What QEMU keeps in its caches is on a qcow2 once the VM is stopped. */
export async function counterOnDisk(path: string, format: "raw" | "qcow2" = "raw"): Promise<number> {
  const directory = await mkdtemp(join(tmpdir(), "counter-"));
  const sector = join(directory, "sector");
  try {
    // Unlike convert, dd takes a part; -U because the VM may hold the lock.
    const place = [`bs=${SECTOR}`, `skip=${COUNTER_SECTOR}`, `count=${COUNTER_SECTOR + 1}`];
    const args = ["dd", "-U", "-f", format, "-O", "raw", ...place, `if=${path}`, `of=${sector}`];
    await promisify(execFile)("qemu-img", args);
    return (await readFile(sector)).readUInt32LE();
  } finally {
    await rm(directory, { recursive: true });
  }
}
