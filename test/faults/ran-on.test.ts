import { Buffer } from "node:buffer";
import { copyFile, mkdir, open, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { describeImage } from "../../src/cli/inspect-page.ts";
import { readMark } from "../../src/control/mapped-ram/resumed.ts";
import type { VmRecord } from "../../src/formats/image/model.ts";
import { encodeLibvirtHeader } from "../../src/formats/libvirt/header.ts";
import {
  convert,
  extract,
  inspect,
  managedList,
  managedRemove,
  restore,
  restoreLaunched,
  restoreVm,
  verify,
} from "../../src/index.ts";
import { exampleMapped } from "../support/example-mapped.ts";
import { failureOf } from "../support/expect-failure.ts";
import { useHelpers } from "../support/helper-process.ts";
import { mappedFile } from "../support/mapped-file.ts";
import {
  ALIVE,
  GONE,
  markImage,
  markOf,
  RESUMED_MS,
  SESSION,
  withContents,
} from "../support/marked-image.ts";
import { useScratch } from "../support/scratch.ts";

const PAGE = 4096;
const AT = new Date(RESUMED_MS).toISOString();
const scratch = useScratch();
const start = useHelpers();
const image = (): string => scratch.file("vm.mr");

const foreign = (base = 0): Buffer =>
  mappedFile({ base, blocks: [{ name: "mem", bytes: 20 * PAGE, pages: { 0: 0x5a, 17: 0xa5 } }] });
/** libvirt's "sparse": its header, and a mapped-ram stream behind. */
function sparse(): Buffer {
  const header = encodeLibvirtHeader({
    ...{ complete: true, dataLength: 5000, running: true, format: "sparse", cookieOffset: null },
  });
  const bytes = foreign(header.length + 5000);
  Buffer.concat([header, Buffer.from("<domain/>\0")]).copy(bytes);
  return bytes;
}

const CONTENTS = { sealed: () => exampleMapped().bytes, unsealed: () => foreign(), "libvirt's": sparse };

async function marked(content: Buffer, mark = markOf(GONE)): Promise<void> {
  await writeFile(image(), content);
  await markImage(image(), mark);
}

/** Every way to have a VM run from an image, or to make another image of it. Nobody listens anywhere. */
const WAYS: readonly (readonly [string, () => readonly string[]])[] = [
  ["restore --connect", () => ["restore", image(), "--connect", nobody()]],
  ["restore --qmp", () => ["restore", image(), "--qmp", scratch.file("nobody")]],
  [
    "restore --qmp --engine file",
    () => ["restore", image(), "--engine", "file", "--qmp", scratch.file("nobody")],
  ],
  ["restore --", () => ["restore", image(), "--", "false"]],
  ["convert", () => ["convert", image(), scratch.file("made"), "--format", "stream"]],
];
const nobody = (): string => `unix:${scratch.file("nobody")}`;
/** With --json in front of what is QEMU's. */
function json(args: readonly string[]): string[] {
  const end = args.indexOf("--");
  return end < 0 ? [...args, "--json"] : [...args.slice(0, end), "--json", ...args.slice(end)];
}

test.each(WAYS)("an image that an instant restore let run is refused by %s", async (_way, args) => {
  await marked(exampleMapped().bytes);
  const refusal = await start(json(args())).failure();
  expect(refusal).toMatchObject({
    ...{ status: 4, code: "VM_RAN_ON", details: { resumed: AT, completed: null, pid: GONE.pid } },
    message: expect.stringMatching(
      /let the VM in .* run at 2026-01-02T.*QEMU is gone: boot the VM.*--force is for/,
    ),
  });
  expect(await scratch.names()).toEqual(["vm.mr"]);
});

describe.each(Object.entries(CONTENTS))("an image that was let run, %s", (_kind, content) => {
  test("is refused by all that restores it", async () => {
    await marked(content());
    const connect = nobody();
    const qmp = { vm: { qmp: scratch.file("nobody") } };
    const launch = { command: ["false"], detached: false, stdoutToStderr: false };
    const ways = [
      () => restore({ image: image(), connect }),
      () => restoreVm({ image: image(), ...qmp }),
      () => restoreVm({ image: image(), ...qmp, engine: "file" }),
      () => restoreLaunched({ image: image(), ...launch }),
      () => convert({ image: image(), output: scratch.file("made"), format: "mapped-ram" }),
    ];
    const page = describeImage(await inspect({ image: image() }));
    expect(page).toContain(`its VM was let run at ${AT} by QEMU, process ${GONE.pid}`);
    expect(page).not.toContain("virsh restore");
    for (const way of ways) expect(await failureOf(way())).toMatchObject({ code: "VM_RAN_ON" });
  });

  test("is taken with --force, which warns once, and fails where nobody listens", async () => {
    await marked(content());
    const helper = start(["restore", image(), "--json", "--force", "--connect", nobody()]);
    expect((await helper.failure()).code).toBe("CONNECT_FAILED");
    expect(helper.stderr.match(/going on because of --force/g)).toHaveLength(1);
  });

  test("is still verified, extracted and, with --force, converted", async () => {
    await marked(content());
    const before = await readFile(image());
    expect(await verify({ image: image() })).toMatchObject({
      resumed: { at: AT, completed: null, session: SESSION, qemu: GONE },
    });
    const ram = scratch.file("ram");
    await extract({ image: image(), output: ram, block: "mem" });
    expect((await readFile(ram)).subarray(17 * PAGE)).toEqual(
      Buffer.concat([Buffer.alloc(PAGE, 0xa5), Buffer.alloc(2 * PAGE)]),
    );
    const output = scratch.file("made");
    await convert({ image: image(), output, format: "stream", force: true });
    expect((await readFile(image())).equals(before)).toBe(true);
  });
});

test("inspect says it, and a restore what is left to do, as far as anybody knows", async () => {
  for (const [mark, words] of [
    [markOf(GONE), "was not completed, and its QEMU is gone: boot the VM from its disks"],
    [markOf(ALIVE), `(process ${process.pid}) still runs: go on with --resume --qmp PATH`],
    [markOf(null), "go on with --resume --qmp PATH if its QEMU still runs, else boot the VM"],
    [
      markOf(null, { completedMs: RESUMED_MS + 1000 }),
      "was complete at 2026-01-02T00:00:01.000Z: save the VM again, or boot it",
    ],
  ] as const) {
    await marked(exampleMapped().bytes, mark);
    const { completedMs, qemu } = mark;
    const completed = completedMs === null ? null : new Date(completedMs).toISOString();
    const report = await inspect({ image: image() });
    expect(report).toMatchObject({ resumed: { at: AT, completed, session: SESSION, qemu } });
    expect(describeImage(report)).toContain(`its VM was let run at ${AT}`);
    const failure = await failureOf(restore({ image: image(), connect: nobody() }));
    expect(failure?.message).toContain(words);
  }
});

test("what is made of it by force says that its VM ran on", async () => {
  const vm: VmRecord = {
    ...{ uuid: null, accelerator: null, commandLine: null, cpuModel: null, cpus: 1, ramBytes: 81_920 },
    ...{ running: true, ranOn: false, disks: [], devices: [] },
  };
  await marked(exampleMapped({ vm }).bytes);
  const made = scratch.file("made");
  for (const format of ["mapped-ram", "stream"] as const) {
    await convert({ image: image(), output: made, format, force: true });
    expect((await inspect({ image: made })).metadata?.vm).toEqual({ ...vm, ranOn: true });
  }
});

test("a managed image that was let run is refused by start, listed as one that may have run, and forgotten", async () => {
  const state = scratch.file("state");
  await mkdir(state, { mode: 0o700 });
  await marked(exampleMapped().bytes);
  await copyFile(image(), scratch.file("state/web.mfd"));
  const where = ["--json", "--state-dir", state];
  const refused = await start(["start", "web", ...where, "--", "false"]).failure();
  expect(refused).toMatchObject({ status: 4, code: "VM_RAN_ON" });
  expect(refused.message).toContain("start web --discard forgets this managed image and boots the VM");
  expect(await managedList(state)).toMatchObject([{ name: "web", state: "resuming", problem: null }]);
  await managedRemove({ name: "web", stateDirectory: state });
  expect(await readdir(state)).toEqual([]);
});

test("a mark that cannot be read counts: refused as damage, said by inspect, taken with --force", async () => {
  await marked(exampleMapped().bytes);
  const { size } = await stat(image());
  const file = await open(image(), "r+");
  await file.write(Buffer.alloc(100, 0xff), 0, 100, size - 2 * PAGE + 1000);
  await file.close();
  for (const refused of [
    await failureOf(restore({ image: image(), connect: nobody() })),
    await failureOf(restoreVm({ image: image(), vm: { qmp: scratch.file("nobody") } })),
    await failureOf(convert({ image: image(), output: scratch.file("made"), format: "stream" })),
  ]) {
    expect(refused).toMatchObject({ code: "IMAGE_DAMAGED" });
    expect(refused?.message).toContain("its VM counts as resumed");
  }
  expect(await inspect({ image: image() })).toMatchObject({
    sealed: true,
    resumed: { at: null, qemu: null },
  });
  await expect(verify({ image: image() })).rejects.toMatchObject({ code: "IMAGE_DAMAGED" });
  const forced = start(["restore", image(), "--json", "--force", "--connect", nobody()]);
  expect((await forced.failure()).code).toBe("CONNECT_FAILED");
});

test("a file without a seal whose mark is not whole is damaged", async () => {
  await marked(foreign());
  const bytes = await readFile(image());
  for (const at of [bytes.length - PAGE, bytes.length - PAGE + 60, bytes.length - 1]) {
    const changed = Buffer.from(bytes);
    changed.writeUInt8(changed.readUInt8(at) ^ 1, at);
    await writeFile(image(), changed);
    await expect(inspect({ image: image() }), `byte ${at}`).rejects.toMatchObject({ code: "IMAGE_DAMAGED" });
  }
  // A sealed image that lost its footer ends with a mark that names another image.
  await marked(exampleMapped().bytes);
  await writeFile(image(), (await readFile(image())).subarray(0, -PAGE));
  await expect(inspect({ image: image() })).rejects.toMatchObject({
    code: "IMAGE_DAMAGED",
    message: expect.stringContaining("ends with the mark of an instant restore, not with a footer"),
  });
});

test("an image behind a manager's header is marked and refused like any", async () => {
  const offset = 3 * PAGE + 5;
  await writeFile(image(), foreign(offset));
  await markImage(image(), markOf(GONE), offset);
  const failure = await failureOf(restore({ image: image(), offset, connect: nobody() }));
  expect(failure?.code).toBe("VM_RAN_ON");
  expect(await withContents(image(), readMark, offset)).toEqual(markOf(GONE));
});
