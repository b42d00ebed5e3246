import { u16, u32 } from "./assembly.ts";

/** Where the BIOS loads the sector and jumps to, and what this one puts where. */
const ORIGIN = 0x7c00;
const PROTECTED_MODE = 0x7c40;
const GDT = 0x7d00;
const SIGNATURE = 0x7dfe;
/** Where a dirtier that checks counts the pages that it found wrong: 4 bytes, little-endian. */
export const WRONG_PAGES = 0x7e00;
/** Enough for the BIOS to see a disk. */
const DISK_BYTES = 2 ** 20;

export interface DirtierOptions {
  /** First and end address of the RAM it walks over, multiples of 4096, from 1 MiB to at most 2 GiB. */
  readonly start: number;
  readonly end: number;
  /** Empty loop turns after each page; 0, the default, dirties as fast as the machine can. */
  readonly spin?: number;
  /** Whether every pass but the first one sees if each page carries the word of the pass before, and counts those that do not. */
  readonly checks?: boolean;
}

/**
 * A raw disk image whose boot sector is the smallest guest that never rests: it enters 32-bit protected
 * mode and walks over RAM for ever, page after page, from `start` to `end`. Pass s (from 1) stores one
 * 8-byte word, s and its complement, at the beginning of every page. So at any instant the pages
 * before the cursor carry s and all others s-1: what a save of a running guest must keep.
 * It disables interrupts and calls nothing, so no firmware ever runs again and every byte above 1 MiB,
 * the firmware's tables included, is its own.
 */
export function dirtierDisk({ start, end, spin = 0, checks = false }: DirtierOptions): Buffer {
  if (start < 0x100000 || end > 2 ** 31 || start >= end || start % 4096 || end % 4096) {
    throw new RangeError(`a dirtier cannot walk from ${start} to ${end}`);
  }
  const disk = Buffer.alloc(DISK_BYTES);
  place(disk, enterProtectedMode(), ORIGIN, PROTECTED_MODE);
  place(disk, walk(start, end, spin, checks), PROTECTED_MODE, GDT);
  place(disk, globalDescriptors(), GDT, SIGNATURE);
  place(disk, u16(0xaa55), SIGNATURE, ORIGIN + 512); // the BIOS boots nothing without it
  return disk;
}

/** 16-bit real mode code, Intel syntax beside the bytes. */
function enterProtectedMode(): number[] {
  return [
    ...[0xfa], // cli
    ...[0x31, 0xc0], // xor ax, ax
    ...[0x8e, 0xd8], // mov ds, ax
    ...[0xe4, 0x92], // in al, 0x92          ; the chipset's port for address line 20
    ...[0x0c, 0x02], // or al, 2             ; open it, or odd megabytes alias even ones
    ...[0xe6, 0x92], // out 0x92, al
    ...[0x0f, 0x01, 0x16, ...u16(GDT + 24)], // lgdt [GDT + 24]
    ...[0x0f, 0x20, 0xc0], // mov eax, cr0
    ...[0x0c, 0x01], // or al, 1             ; PE
    ...[0x0f, 0x22, 0xc0], // mov cr0, eax
    ...[0xea, ...u16(PROTECTED_MODE), ...u16(0x08)], // jmp 0x08:PROTECTED_MODE
  ];
}

/** 32-bit code. One MMX store per page, because two stores could be seen half done. */
function walk(start: number, end: number, spin: number, checks: boolean): number[] {
  const page = [
    ...(checks ? check : []),
    ...[0x0f, 0x7f, 0x07], // page: movq [edi], mm0
    ...[0xb9, ...u32(spin)], // mov ecx, spin
    ...[0xe3, 0x03], // jecxz +3             ; over the loop
    ...[0x49], // dec ecx
    ...[0x75, 0xfd], // jnz -3
    ...[0x81, 0xc7, ...u32(4096)], // add edi, 4096
    ...[0x81, 0xff, ...u32(end)], // cmp edi, end
  ];
  const pass = [
    ...[0x43], // pass: inc ebx
    ...[0x89, 0xd8], // mov eax, ebx
    ...[0xf7, 0xd0], // not eax
    ...[0x50], // push eax
    ...[0x53], // push ebx
    ...[0x0f, 0x6f, 0x04, 0x24], // movq mm0, [esp]
    ...[0x83, 0xc4, 0x08], // add esp, 8
    ...[0xbf, ...u32(start)], // mov edi, start
    ...page,
    ...[0x72, back(page.length + 2)], // jb page
  ];
  return [
    ...[0x66, 0xb8, ...u16(0x10)], // mov ax, 0x10     ; the flat data segment
    ...[0x8e, 0xd8], // mov ds, ax
    ...[0x8e, 0xd0], // mov ss, ax
    ...[0x8e, 0xc0], // mov es, ax           ; unused, but real mode's values here are no valid
    ...[0x8e, 0xe0], // mov fs, ax           ; protected mode state, and some KVMs then emulate
    ...[0x8e, 0xe8], // mov gs, ax           ; instruction by instruction, a hundred times slower
    ...[0xbc, ...u32(ORIGIN)], // mov esp, ORIGIN
    ...[0xc7, 0x05, ...u32(WRONG_PAGES), ...u32(0)], // mov dword [WRONG_PAGES], 0
    ...[0x31, 0xdb], // xor ebx, ebx
    ...pass,
    ...[0xeb, back(pass.length + 2)], // jmp pass
  ];
}

const check: readonly number[] = [
  ...[0x83, 0xfb, 0x01], // cmp ebx, 1
  ...[0x74, 20], // je +20                ; over all of this
  ...[0x8d, 0x43, 0xff], // lea eax, [ebx - 1]
  ...[0x39, 0x07], // cmp [edi], eax
  ...[0x75, 7], // jne +7                ; to the count
  ...[0xf7, 0xd0], // not eax
  ...[0x39, 0x47, 0x04], // cmp [edi + 4], eax
  ...[0x74, 6], // je +6
  ...[0xff, 0x05, ...u32(WRONG_PAGES)], // inc dword [WRONG_PAGES]
];

/** Three descriptors (Intel SDM volume 3, 3.4.5): null, and flat 4 GiB code and data; then the register image for lgdt. */
function globalDescriptors(): number[] {
  return [
    ...[0, 0, 0, 0, 0, 0, 0, 0],
    ...[0xff, 0xff, 0, 0, 0, 0x9a, 0xcf, 0], // 0x08: code, 32-bit, pages, base 0
    ...[0xff, 0xff, 0, 0, 0, 0x92, 0xcf, 0], // 0x10: data
    ...[...u16(23), ...u32(GDT)],
  ];
}

/** Copies bytes assembled for `address` to where the BIOS will have loaded them from. */
function place(disk: Buffer, bytes: number[], address: number, limit: number): void {
  if (address + bytes.length > limit)
    throw new RangeError(`${bytes.length} bytes at ${address} reach beyond ${limit}`);
  disk.set(bytes, address - ORIGIN);
}

function back(bytes: number): number {
  return 256 - bytes;
}
