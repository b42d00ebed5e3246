import { copyFile, mkdir, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import { beforeEach, describe, expect, test } from "vitest";
import { encodeLibvirtStart } from "../../src/formats/libvirt/data-area.ts";
import {
  type ConvertOptions,
  convert,
  diff,
  extract,
  inspect,
  MultifdError,
  type SaveOptions,
  type StreamImageReport,
  save,
  verify,
} from "../../src/index.ts";
import { buildMigration, type FakeMigrationOptions } from "../support/fake-migration.ts";
import { FakePeer } from "../support/fake-peer.ts";
import { describeWithMounts, useMounts } from "../support/mounts.ts";
import { useScratch } from "../support/scratch.ts";

const MIB = 2 ** 20;
const scratch = useScratch();
const at = (name: string): string => scratch.file(name);
const OLD = Buffer.from("an earlier image that somebody needs");

const RECORD = {
  ...{ uuid: null, accelerator: "kvm", commandLine: null, cpuModel: null, cpus: 1, ramBytes: 4 * MIB },
  ...{ running: true, ranOn: false, disks: [], devices: [] },
};

/** A guest of 4 MiB; its RAM is large enough that damage can lie in the midst of it. */
async function saved(
  name: string,
  options: Partial<FakeMigrationOptions> = {},
  format?: "mapped-ram",
  more: Partial<SaveOptions> = {},
) {
  const migration = buildMigration({ style: "10", blocks: [{ name: "mem", bytes: 4 * MIB }], ...options });
  let sent: Promise<unknown> = Promise.resolve();
  await save({
    ...{ image: at(name), listen: `unix:${at("s")}`, channels: migration.channels.length, format },
    ...more,
    onEvent: (event) => {
      if (event.event !== "listening") return;
      sent = new FakePeer(event.address).play([migration.main, ...migration.channels]);
    },
  });
  await sent;
  return migration;
}

/** One bit of one page. */
async function damage(name: string): Promise<void> {
  const bytes = await readFile(at(name));
  const page = bytes.indexOf("mem@1e0000;");
  bytes.writeUInt8(bytes.readUInt8(page) ^ 1, page);
  await writeFile(at(name), bytes);
}

async function failure(work: Promise<unknown>): Promise<MultifdError> {
  const error = await work.then(
    () => expect.fail("it succeeded"),
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(MultifdError);
  return error as MultifdError;
}

/** Nothing is left but what was there, and that is as it was. */
async function untouched(names: readonly string[]): Promise<void> {
  expect((await readdir(scratch.directory)).sort()).toEqual([...names].sort());
  if (names.includes("out")) expect((await readFile(at("out"))).equals(OLD)).toBe(true);
}

describe("a conversion that fails leaves everything as it was", () => {
  beforeEach(() => writeFile(at("out"), OLD));
  const ways: readonly [string, Partial<ConvertOptions>][] = [
    ["to mapped-ram", { format: "mapped-ram" }],
    ["to a stream of other channels, by a copy", { format: "stream", channels: 5 }],
    ["to libvirt", { format: "libvirt", xml: "<domain/>" }],
  ];
  for (const [name, options] of ways) {
    test(`damage in the source: ${name}`, async () => {
      await saved("in");
      await damage("in");
      const error = await failure(
        convert({ image: at("in"), output: at("out"), format: "stream", ...options }),
      );
      expect(error).toMatchObject({ code: "IMAGE_DAMAGED", exitStatus: 4 });
      await untouched(["in", "out"]);
    });

    test(`cancelled: ${name}`, async () => {
      await saved("in");
      const stop = new AbortController();
      const converting = convert({
        ...{ image: at("in"), output: at("out"), format: "stream", ...options },
        signal: stop.signal,
        log: { ...silent, debug: () => stop.abort() },
      });
      expect(await failure(converting)).toMatchObject({ code: "CANCELLED" });
      await untouched(["in", "out"]);
    });
  }

  test("a mapped-ram source that is damaged", async () => {
    await saved("in", {}, "mapped-ram");
    await damage("in");
    const error = await failure(convert({ image: at("in"), output: at("out"), format: "stream" }));
    expect(error).toMatchObject({ code: "IMAGE_DAMAGED" });
    await untouched(["in", "out"]);
  });

  test("a mapped-ram source whose configuration no longer names mapped-ram, even with force", async () => {
    await saved("in", {}, "mapped-ram");
    const bytes = await readFile(at("in"));
    for (const word of ["configuration/capabilities", "mapped-ram"]) {
      const changed = Buffer.from(bytes);
      changed.writeUInt8(changed.readUInt8(changed.indexOf(word)) ^ 1, changed.indexOf(word));
      await writeFile(at("in"), changed);
      const options = { image: at("in"), output: at("out"), channels: 0, force: true };
      const error = await failure(convert({ ...options, format: "stream" }));
      expect(error.code).toBe("IMAGE_DAMAGED");
      expect(await failure(verify({ image: at("in") }))).toMatchObject({ code: "IMAGE_DAMAGED" });
      expect(await failure(inspect({ image: at("in") }))).toMatchObject({ code: "IMAGE_DAMAGED" });
      await untouched(["in", "out"]);
    }
  });

  test("what is no whole save: every reader says so with the same code", async () => {
    const { main } = await saved("whole", { channels: 0 });
    await rm(at("whole"));
    const headless = Buffer.from(main).fill(0xff, 8, 16);
    const start = (complete: boolean) =>
      encodeLibvirtStart({ complete, running: false, xml: "<domain/>", cookie: null });
    for (const [bytes, code] of [
      [main.subarray(0, main.length - 1), "IMAGE_DAMAGED"],
      [main.subarray(0, 2 * MIB), "IMAGE_DAMAGED"],
      [headless, "IMAGE_DAMAGED"],
      [Buffer.concat([start(true), main.subarray(0, MIB)]), "IMAGE_DAMAGED"],
      [Buffer.concat([start(true), headless]), "IMAGE_DAMAGED"],
      [Buffer.concat([start(false), main]), "NOT_SEALED"],
      [Buffer.alloc(MIB, "text"), "NOT_AN_IMAGE"],
    ] as const) {
      await writeFile(at("in"), bytes);
      const options = { image: at("in"), output: at("out") };
      for (const read of [
        () => verify(options),
        () => convert({ ...options, format: "mapped-ram" }),
        () => convert({ ...options, format: "stream", channels: 0 }),
        () => extract({ ...options, block: "mem" }),
        () => diff({ ...options, other: at("in") }),
      ]) {
        const error = await failure(read());
        expect(error).toMatchObject({ code, exitStatus: 4, message: expect.stringContaining(at("in")) });
        await untouched(["in", "out"]);
      }
    }
  });

  test("the XML of another domain, and none at all", async () => {
    await saved("in", { uuid: "11111111-2222-3333-4444-555555555555" });
    const xml = "<domain><uuid>99999999-2222-3333-4444-555555555555</uuid></domain>";
    const options = { image: at("in"), output: at("out"), format: "libvirt" } as const;
    expect(await failure(convert({ ...options, xml }))).toMatchObject({ code: "VM_MISMATCH" });
    expect(await failure(convert(options))).toMatchObject({
      code: "USAGE",
      message: expect.stringContaining("--xml"),
    });
    // Found only when the output's temporary file is there.
    expect(await failure(convert({ ...options, xml: "" }))).toMatchObject({ code: "USAGE" });
    await untouched(["in", "out"]);
    await convert({ ...options, xml, force: true });
  });

  test("an output that is the source, by whatever name", async () => {
    await saved("in");
    await rm(at("out"));
    await symlink("in", at("link"));
    for (const output of [at("in"), `${scratch.directory}/./in`, at("link")]) {
      const error = await failure(convert({ image: at("in"), output, format: "mapped-ram" }));
      expect(error.code).toBe("USAGE");
    }
    await verify({ image: at("in") });
  });
});

describe("the directory for temporary files", () => {
  let before: string | undefined;
  beforeEach(() => {
    before = process.env.TMPDIR;
    return () => {
      if (before === undefined) delete process.env.TMPDIR;
      else process.env.TMPDIR = before;
    };
  });

  test("is missing, and that is said", async () => {
    await saved("in");
    process.env.TMPDIR = at("nowhere");
    const error = await failure(extract({ image: at("in"), output: at("out"), block: "mem" }));
    expect(error).toMatchObject({ code: "IO", message: expect.stringContaining("TMPDIR") });
    await untouched(["in"]);
  });

  test("is too long for a socket, so that another is taken", async () => {
    await saved("in");
    process.env.TMPDIR = path.join(scratch.directory, "d".repeat(100));
    await mkdir(process.env.TMPDIR);
    await extract({ image: at("in"), output: at("out"), block: "mem" });
  });
});

test("a block that is not there is named with those that are; nothing is written", async () => {
  await saved("in");
  const error = await failure(extract({ image: at("in"), output: at("ram"), block: "pc.ram" }));
  expect(error).toMatchObject({ code: "USAGE", message: expect.stringContaining("the image has mem") });
  await untouched(["in"]);
});

test("diff counts pages, names blocks that only one has, and reads both images whole", async () => {
  await saved("a");
  await saved("b", {}, "mapped-ram");
  await saved("c", { zeroEvery: 0 });
  await saved("d", { blocks: [{ name: "other", bytes: MIB }] });
  expect(await diff({ image: at("a"), other: at("b") })).toMatchObject({ pages: 1024, differing: 0 });
  // Every third page, from the second on, is zero in the one and not in the other.
  expect(await diff({ image: at("c"), other: at("b") })).toMatchObject({
    differing: 341,
    blocks: [{ name: "mem", pages: 1024, differing: 341, firstDiffering: 4096 }],
  });
  expect(await diff({ image: at("a"), other: at("d") })).toMatchObject({
    ...{ pages: 0, differing: 0, unmatched: ["mem", "other"] },
  });
  await damage("b");
  expect(await failure(diff({ image: at("a"), other: at("b") }))).toMatchObject({ code: "IMAGE_DAMAGED" });
});

describeWithMounts("a disk that is full", () => {
  const mounts = useMounts();
  for (const [name, options] of [
    ["mapped-ram", { format: "mapped-ram" }],
    ["libvirt", { format: "libvirt", xml: "<domain/>" }],
    ["a copy on the way", { format: "stream", channels: 7 }],
  ] as const) {
    test(`says so, and keeps the earlier image: ${name}`, async () => {
      await saved("in");
      mounts.mount("tmpfs", at("small"), "size=2m");
      await writeFile(at("small/out"), OLD);
      const error = await failure(convert({ image: at("in"), output: at("small/out"), ...options }));
      const message = expect.stringMatching(/: free some space and try again$/);
      expect(error).toMatchObject({ code: "NO_SPACE", exitStatus: 5, message });
      expect(await readdir(at("small"))).toEqual(["out"]);
      expect((await readFile(at("small/out"))).equals(OLD)).toBe(true);
    });
  }

  test("a block that is taken out does not fit", async () => {
    await saved("in");
    mounts.mount("tmpfs", at("small"), "size=2m");
    const error = await failure(extract({ image: at("in"), output: at("small/ram"), block: "mem" }));
    expect(error.code).toBe("NO_SPACE");
    expect(await readdir(at("small"))).toEqual([]);
  });
});

test("channels of a vendor's machine type have the barriers of the QEMU that saved it", async () => {
  for (const [qemuVersion, barrierMode] of [
    ["7.2.22", "legacy"],
    ["10.0.2", "modern"],
  ] as const) {
    const describeVm = () => ({ qemuVersion, record: RECORD });
    await saved("in", { channels: 0, machine: "pc-q35-rhel8.6.0" }, undefined, { describeVm });
    await convert({ image: at("in"), output: at("out"), format: "stream", channels: 2 });
    const { metadata } = (await inspect({ image: at("out") })) as StreamImageReport;
    expect(metadata).toMatchObject({ qemuVersion, barrierMode, multifdChannels: 2 });
    await verify({ image: at("out") });
  }
});

test("a source that a save is about to write over is left alone", async () => {
  await saved("in");
  await copyFile(at("in"), at("copy"));
  await convert({ image: at("in"), output: at("copy"), format: "mapped-ram" });
  expect(await verify({ image: at("copy") })).toMatchObject({ checked: "checksums and structure" });
});

const silent = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};
