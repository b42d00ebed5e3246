import fc from "fast-check";
import { hasZstd } from "./plain-reader/zstd.ts";

/**
 * What a random migration is like. All further choices follow from the seed, so that a counterexample of fast-check is
 * short, can be read, and builds the same bytes again.
 */
export interface MigrationShape {
  readonly seed: number;
  readonly blocks: readonly { readonly name: string; readonly pages: number }[];
  /** 0: no multifd, all pages on main. */
  readonly channels: number;
  /**
   * Whose habits. "7.2": legacy barriers, SYNC merged with data and an empty packet behind it, pages twice in an epoch, stale
   * fields. "10": MULTIFD_FLUSH barriers. "10 as 8.0": QEMU 10 with a machine type up to pc-q35-8.0, whose barriers are legacy.
   */
  readonly style: "7.2" | "10" | "10 as 8.0";
  /** zero-page-detection: as records on main, in packets, or not at all (data that is zero). */
  readonly zeroPages: "legacy" | "multifd" | "none";
  /** Passes over RAM. The first sends all of it; each further one some pages again, as data or zero. */
  readonly passes: number;
  /** Pages of a pass in no order, rather than ascending. */
  readonly scattered: boolean;
  /** Some pages are never sent, as a guest with a balloon has it. */
  readonly unsent: boolean;
  /** multifd-compression; without channels it means nothing. */
  readonly compression: "none" | "zlib" | "zstd";
  readonly returnPath: boolean;
  /** The configuration names the UUID (validate-uuid). */
  readonly validateUuid: boolean;
  /** A background snapshot: no channels, one pass, no section END. */
  readonly background: boolean;
}

const NAME_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789/.-_@:ABCXYZ";

const blockName = fc.oneof(
  fc.constantFrom("mem", "pc.ram", "/rom@etc/acpi/tables", "0000:00:02.0/vga.vram", "pc.bios", "a"),
  fc.string({ unit: fc.constantFrom(...NAME_CHARACTERS), minLength: 1, maxLength: 255 }),
  // As long as a name can be, and alike up to the last character.
  fc.constantFrom(..."xy").map((last) => `${"n".repeat(254)}${last}`),
);

const blockPages = fc.oneof(
  { weight: 3, arbitrary: fc.integer({ min: 1, max: 20 }) },
  { weight: 2, arbitrary: fc.constantFrom(1, 63, 64, 65, 127, 128, 129) },
  { weight: 1, arbitrary: fc.integer({ min: 100, max: 400 }) },
);

const anyShape = fc.record<MigrationShape>({
  seed: fc.nat(2 ** 31),
  blocks: fc.uniqueArray(fc.record({ name: blockName, pages: blockPages }), {
    selector: ({ name }) => name,
    minLength: 1,
    maxLength: 6,
  }),
  channels: fc.oneof(fc.nat(3), fc.nat(8)),
  style: fc.constantFrom("7.2", "10", "10 as 8.0"),
  zeroPages: fc.constantFrom("legacy", "multifd", "none"),
  passes: fc.integer({ min: 1, max: 4 }),
  scattered: fc.boolean(),
  unsent: fc.boolean(),
  compression: fc.constantFrom("none", "none", "zlib", hasZstd ? "zstd" : "zlib"),
  returnPath: fc.boolean(),
  validateUuid: fc.boolean(),
  background: fc.boolean(),
});

/** Migrations as QEMU could send them, with some properties `fixed`: `migrationShapes({ compression: "none" })`. */
export function migrationShapes(fixed: Partial<MigrationShape> = {}): fc.Arbitrary<MigrationShape> {
  return anyShape.map((shape) => possible({ ...shape, ...fixed }));
}

/** Puts right what no QEMU combines. */
function possible(shape: MigrationShape): MigrationShape {
  const single = shape.channels === 0;
  const background = shape.background && single;
  const onMain = shape.style === "7.2" || (single && shape.zeroPages === "multifd");
  return {
    ...shape,
    ...(background ? { background, passes: 1, returnPath: false, validateUuid: false } : { background }),
    compression: single ? "none" : shape.compression,
    zeroPages: onMain ? "legacy" : shape.zeroPages,
  };
}
