import { Buffer } from "node:buffer";
import { describe, test } from "vitest";
import { encodeMetadata } from "../../src/formats/image/metadata.ts";
import { exampleMetadata } from "../support/example-image.ts";
import { forge, forgedIndex } from "../support/forged-image.ts";
import { type Refusal, useRefusals } from "../support/refusals.ts";

const MIB = 2 ** 20;
const TIB = 2 ** 40;

const { scratch, expectRefused } = useRefusals();

/** As many extents of one page each as there are, behind each other. */
function pages(count: number, from = 4096): Float64Array {
  return Float64Array.from({ length: 2 * count }, (_, i) => (i % 2 === 0 ? from + (i / 2) * 4096 : 4096));
}

describe("images of absurd size, with every checksum right", () => {
  const sparse = { code: "IMAGE_DAMAGED", inspectable: true, words: /checksum/ };
  const zeros = (length: number, blockBytes: number) => ({
    ...{ length, blockBytes, extents: Float64Array.of(4096, length) },
    checksums: new Uint32Array(Math.ceil(length / blockBytes)),
  });
  /** A record that claims `count` of what the field at `offset` counts. */
  const claiming = (offset: number, count: number) => {
    const bytes = forgedIndex({}, []);
    bytes.writeUInt32BE(count, 16 + offset);
    return bytes;
  };

  test.each<[string, () => Parameters<typeof forge>[1], Refusal]>([
    [
      "an index of 1 GiB of zeros",
      () => ({ index: { bytes: Buffer.alloc(0), zeros: 2 ** 30 } }),
      { code: "IMAGE_DAMAGED", words: /index byte 0/ },
    ],
    [
      "an index beyond 1 GiB",
      () => ({ index: { bytes: Buffer.alloc(0), zeros: 2 ** 30 + 8 } }),
      { code: "IMAGE_DAMAGED", words: /limit/ },
    ],
    [
      "4 million extents",
      () => ({ index: { bytes: claiming(32, 2 ** 22), zeros: 2 ** 26 } }),
      { code: "IMAGE_DAMAGED", words: /4194304 extents/ },
    ],
    [
      "100 million marks",
      () => ({ index: { bytes: claiming(36, 100_000_000), zeros: 800_000_000 } }),
      { code: "IMAGE_DAMAGED", words: /100000000 marks/ },
    ],
    [
      "as many extents as there may be",
      () => {
        const many = { ...zeros(2 ** 30, 4096), extents: pages(2 ** 18) };
        return { at: 4096 + 2 ** 30, index: { bytes: forgedIndex(many) } };
      },
      sparse,
    ],
    [
      "as many marks as there may be",
      () => {
        const marks = Float64Array.from({ length: 2 ** 22 }, (_, i) => i + 1);
        return { at: 4096 + 2 ** 23, index: { bytes: forgedIndex({ ...zeros(2 ** 23, MIB), marks }) } };
      },
      sparse,
    ],
    [
      "14 TiB of zeros in one channel",
      () => ({ at: 4096 + 14 * TIB, index: { bytes: forgedIndex(zeros(14 * TIB, MIB)) } }),
      sparse,
    ],
    [
      "a TiB in blocks of 4096 bytes: an index of 1 GiB",
      () => {
        const length = TIB - 2 ** 20;
        const head = forgedIndex({ ...zeros(length, 4096), checksums: null });
        head.writeUInt32BE(1, 16 + 20);
        return { at: TIB, index: { bytes: head, zeros: length / 1024 } };
      },
      sparse,
    ],
    [
      "14 TiB without checksums",
      () => {
        const main = { ...zeros(14 * TIB, MIB), checksums: null };
        return { at: 4096 + 14 * TIB, index: { bytes: forgedIndex(main, [{ marks: Float64Array.of(1) }]) } };
      },
      { code: "IMAGE_DAMAGED" },
    ],
    [
      "255 channels of counts without end",
      () => {
        const bytes = forgedIndex(
          {},
          Array.from({ length: 255 }, () => ({})),
        );
        for (let record = 0; record < 256; record++)
          bytes.fill(0xff, 16 + 48 * record + 32, 16 + 48 * record + 40);
        return { index: { bytes } };
      },
      { code: "IMAGE_DAMAGED", words: /index byte 16: the record needs/ },
    ],
    [
      "255 channels in blocks of 1 MiB",
      () => ({
        index: {
          bytes: forgedIndex(
            {},
            Array.from({ length: 255 }, () => ({ blockBytes: MIB })),
          ),
        },
      }),
      { code: "IMAGE_DAMAGED", words: /block sizes/ },
    ],
    [
      "64 connections in blocks of 1 MiB",
      () => {
        const [main, ...channels] = Array.from({ length: 64 }, (_, number) => ({
          ...zeros(4 * MIB, MIB),
          extents: Float64Array.of(4096 + number * 4 * MIB, 4 * MIB),
        }));
        const metadata = encodeMetadata({ ...exampleMetadata(), multifdChannels: 63 });
        const index = { bytes: forgedIndex(main ?? {}, channels) };
        return { at: 4096 + 256 * MIB, metadata: { bytes: metadata }, index };
      },
      sparse,
    ],
  ])("%s", async (_, forgery, refusal) => {
    const file = scratch.file("vm.mfd");
    await forge(file, forgery());
    await expectRefused(file, refusal);
  });
});

describe("metadata that would fill memory, with every checksum right", () => {
  const index = { bytes: forgedIndex({}) };
  const whole = (user: object) =>
    Buffer.from(JSON.stringify({ ...exampleMetadata(), multifdChannels: 0, user }));

  test.each<[string, () => Buffer, RegExp]>([
    ["64 MiB of nested arrays", () => Buffer.alloc(64 * MIB, "["), /limit/],
    ["4 MiB of nested arrays", () => Buffer.alloc(4 * MIB, "["), /nests 4194304 deep/],
    ["4 MiB of empty arrays", () => Buffer.from(`[${"[],".repeat((4 * MIB) / 3 - 2)}[]]`), /values/],
    ["4 MiB of objects with a key", () => Buffer.alloc(4 * MIB - 3, '{"a":{}},'), /values/],
    ["as many different keys as there may be", () => differentKeys(130_000), /user/],
    [
      "4 MiB of text beyond Latin-1",
      () => whole({ big: `${"a".repeat(4 * MIB - 2000)}\u20ac`, n: 1 }),
      /user/,
    ],
    ["4 MiB of base64 that is none", () => whole({ big: 1, also: "A".repeat(4 * MIB - 2000) }), /user/],
  ])("%s", async (_, bytes, words) => {
    const file = scratch.file("vm.mfd");
    await forge(file, { metadata: { bytes: bytes() }, index });
    await expectRefused(file, { code: "IMAGE_DAMAGED", words });
  });

  function differentKeys(count: number): Buffer {
    return whole(Object.fromEntries(Array.from({ length: count }, (_, i) => [`key ${i}`, i])));
  }
});
