import fs from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { ControlBlock } from "../../src/pool/control-block.ts";
import { ExtentWriter } from "../../src/pool/extent-writer.ts";
import type { DrainTask } from "../../src/pool/messages.ts";

const MIB = 2 ** 20;
const REGION = 64 * MIB;

let directory: string;
let fd: number;

beforeEach(async () => {
  directory = await mkdtemp(path.join(tmpdir(), "mfd-extents-"));
  fd = fs.openSync(path.join(directory, "image"), "w+");
});

afterEach(async () => {
  fs.closeSync(fd);
  await rm(directory, { recursive: true });
});

/** Channels of one save, of so many connections. */
function channels(count: number, connections: number, ownsFile: boolean): ExtentWriter[] {
  const control = new ControlBlock();
  control.connections = connections;
  const task: DrainTask = {
    ...{ connection: 0, socketFd: -1, image: { fd, base: 0, directIo: false }, control: control.memory },
    ...{ blockBytes: MIB, slots: 3, sparse: true, ownsFile, capacity: null, maxBytes: null, rate: null },
    checksum: true,
  };
  return Array.from({ length: count }, () => new ExtentWriter(control, task));
}

test("of a file that is the image's, space is reserved in regions, once for all channels", () => {
  const [a, b] = channels(2, 5, true) as [ExtentWriter, ExtentWriter];
  a.place(MIB);
  b.place(MIB);
  expect(fs.fstatSync(fd).size).toBe(REGION);
  for (let block = 2; block <= 64; block++) (block % 2 === 0 ? a : b).place(MIB);
  expect(fs.fstatSync(fd).size).toBe(2 * REGION);
});

test("of any other file no more than an extent is, so that nothing is left behind the image", () => {
  const [a] = channels(1, 5, false) as [ExtentWriter];
  a.place(MIB);
  expect(fs.fstatSync(fd).size).toBe(2 * MIB);
});

test("with few connections nothing is reserved", () => {
  const [a] = channels(1, 4, true) as [ExtentWriter];
  a.place(MIB);
  expect(fs.fstatSync(fd).size).toBe(0);
});
