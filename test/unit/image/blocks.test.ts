import { expect, test } from "vitest";
import { blocks, ExtentMap } from "../../../src/formats/image/blocks.ts";
import { exampleImage } from "../../support/example-image.ts";
import { indexAsRead } from "../../support/index-as-read.ts";

const { index, bytes, streams } = exampleImage();
const channel = indexAsRead(index, 0x7000).channels[1];
if (channel === undefined) throw new Error("the example has a channel 0");

test("blocks follow the channel's bytes through its extents", () => {
  const sums = [0x70c8, 0x70cc, 0x70d0];
  expect(sums.map((at) => bytes.readUInt32BE(at))).toEqual([...(index.channels[1]?.checksums ?? [])]);
  expect([...blocks(channel)]).toEqual([
    { position: 0, offset: 0x1000, length: 4096, checksumAt: sums[0] },
    { position: 4096, offset: 0x2000, length: 4096, checksumAt: sums[1] },
    { position: 8192, offset: 0x5000, length: 1344, checksumAt: sums[2] },
  ]);
});

test("without checksums blocks have none", () => {
  const bare = { ...channel, checksumsAt: null };
  expect([...blocks(bare)].map((block) => block.checksumAt)).toEqual([null, null, null]);
});

test("an empty channel has no blocks", () => {
  expect([...blocks({ ...channel, length: 0, extents: new Float64Array(0) })]).toEqual([]);
});

test("every byte of a channel is found where it lies, with the run behind it", () => {
  const map = new ExtentMap(channel);
  const stream = streams[1];
  for (let position = 0; position < channel.length; position++) {
    const run = map.locate(position);
    expect(bytes[run.offset]).toBe(stream?.[position]);
    expect(run.length).toBe((position < 8192 ? 8192 : channel.length) - position);
  }
});

test.each([-1, 9536, 9537])("byte %i does not exist", (position) => {
  expect(() => new ExtentMap(channel).locate(position)).toThrow(
    expect.objectContaining({ code: "INTERNAL" }),
  );
});
