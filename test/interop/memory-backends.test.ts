import { readFileSync, writeFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, expect, test } from "vitest";
import { compareFiles } from "../../src/demo/ram-pattern.ts";
import { migrateTo } from "../../src/vm/migration.ts";
import { dirtierDisk } from "../support/boot-sector.ts";
import { checkDirtyRam } from "../support/dirty-ram.ts";
import { useHelpers } from "../support/helper-process.ts";
import { inspectStream } from "../support/inspecting.ts";
import { restoredInstantly } from "../support/instant-guests.ts";
import { configure, type Guest, type GuestSetup, Lab } from "../support/lab.ts";
import { describeEachQemu } from "../support/qemus.ts";

const MIB = 2 ** 20;
const RAM = 128 * MIB;
const WALKED = { start: MIB, end: RAM };
const HUGE_PAGES = "/proc/sys/vm/nr_hugepages";
const HUGE_PAGE = 2 * MIB;

describeEachQemu("guests whose RAM no file shows", (binary) => {
  let lab: Lab;
  beforeEach(async () => {
    lab = await Lab.open();
  });
  afterEach(() => lab.close());

  /** Fills the RAM from inside the guest, stops it, and compares what QEMU itself says of its memory. */
  async function roundTrip(
    memory: NonNullable<GuestSetup["memory"]>,
    restore: (setup: GuestSetup, source: Guest, image: string) => Promise<Guest>,
  ): Promise<void> {
    const bootDisk = lab.file("disk");
    await writeFile(bootDisk, dirtierDisk(WALKED));
    const setup = { binary, ramBytes: RAM, bootDisk, memory, accelerator: "tcg" as const };
    const source = await lab.source(setup);
    await source.vm.qmp.execute("cont");
    await untilFilled(source);
    const image = lab.file("vm.mfd");
    const destination = await restore(setup, source, image);
    const [before, after] = [await memoryOf(source, "before"), await memoryOf(destination, "after")];
    expect(await checkDirtyRam(after, WALKED)).toMatchObject({ violations: 0 });
    const { pages, differing, firstDifferingPage } = await compareFiles(before, after);
    expect(pages).toBe(RAM / 4096);
    // KVM writes its clock into one page of the firmware's memory as it loads.
    expect(differing).toBeLessThanOrEqual(1);
    expect(firstDifferingPage ?? 0).toBeLessThan(WALKED.start / 4096);
  }

  async function throughChannels(setup: GuestSetup, source: Guest, image: string): Promise<Guest> {
    await lab.save(source, { channels: 4 }, { image, workers: 2 });
    return lab.restore(setup, { channels: 4 }, image);
  }

  async function instantly(setup: GuestSetup, source: Guest, image: string): Promise<Guest> {
    await lab.save(source, { channels: 4 }, { image, format: "mapped-ram", workers: 2 });
    const hostPages = setup.memory?.kind === "memfd" ? { ram: HUGE_PAGE } : {};
    return restoredInstantly(lab, setup, { image, hostPages });
  }

  const WAYS = [
    ["through channels", throughChannels],
    ["instantly", instantly],
  ] as const;

  async function untilFilled(guest: Guest): Promise<void> {
    const deadline = Date.now() + 60_000;
    for (;;) {
      await guest.vm.qmp.execute("stop");
      const dump = await memoryOf(guest, "now");
      const filled = await checkDirtyRam(dump, WALKED).then(
        () => true,
        () => false,
      );
      if (filled) return;
      if (Date.now() > deadline) throw new Error("the guest has not filled its RAM");
      await guest.vm.qmp.execute("cont");
      await sleep(200);
    }
  }

  async function memoryOf(guest: Guest, name: string): Promise<string> {
    const filename = lab.file(name);
    await guest.vm.qmp.execute("pmemsave", { val: 0, size: RAM, filename });
    return filename;
  }

  test.each(WAYS)("anonymous RAM, restored %s", (_how, restore) => {
    return roundTrip({ kind: "anonymous" }, restore);
  });

  test.for(WAYS)("RAM from huge pages of 2 MiB, restored %s", async ([_how, restore], { skip }) => {
    const before = reserveHugePages((2 * RAM) / HUGE_PAGE);
    if (before === null) {
      console.warn("\n*** NOT TESTED: this machine cannot reserve huge pages of 2 MiB ***\n");
      skip();
      return;
    }
    try {
      await roundTrip({ kind: "memfd", hugetlb: true }, restore);
    } finally {
      await lab.close();
      writeFileSync(HUGE_PAGES, before);
    }
  });
});

/** @returns how many were reserved before, or null when the machine has not got as many */
function reserveHugePages(count: number): string | null {
  try {
    const before = readFileSync(HUGE_PAGES, "utf8").trim();
    writeFileSync(HUGE_PAGES, String(Number(before) + count));
    const got = Number(readFileSync(HUGE_PAGES, "utf8"));
    if (got >= Number(before) + count) return before;
    writeFileSync(HUGE_PAGES, before);
    return null;
  } catch {
    return null;
  }
}

describeEachQemu("what a save cannot hold, and says so", (binary) => {
  const start = useHelpers();
  let lab: Lab;
  beforeEach(async () => {
    lab = await Lab.open();
  });
  afterEach(() => lab.close());

  async function capability(guest: Guest, name: string): Promise<void> {
    await guest.vm.qmp.execute("migrate-set-capabilities", {
      capabilities: [{ capability: name, state: true }],
    });
  }

  test("RAM that x-ignore-shared leaves out of the stream", async () => {
    const source = await lab.source({ binary, ramBytes: 64 * MIB });
    await capability(source, "x-ignore-shared");
    const image = lab.file("vm.mfd");
    const warnings: string[] = [];
    const nothing = (): void => undefined;
    const log = {
      debug: nothing,
      info: nothing,
      error: nothing,
      warn: (_: object, text: string) => warnings.push(text),
    };
    await lab.save(source, { channels: 2 }, { image, workers: 2, log });
    expect(warnings.join()).toContain("is not in this image");
    expect((await inspectStream(image)).destination?.capabilities).toEqual(["x-ignore-shared"]);
  });

  test("a return path, on which nobody will answer", async () => {
    const source = await lab.source({ binary, ramBytes: 64 * MIB });
    await capability(source, "return-path");
    await configure(source.vm, { channels: 2 });
    const address = `unix:${source.vm.socketPath("out")}`;
    const save = start(["save", lab.file("vm.mfd"), "--listen", address, "--json"]);
    await save.waitEvent("listening");
    await migrateTo(source.vm.qmp, address);
    const deadline = Date.now() + 10_000;
    while (!save.stderr.includes("return path") && Date.now() < deadline) await sleep(50);
    expect(save.stderr).toContain("switch the capability return-path off");
    save.signal("SIGTERM");
    expect(await save.exit()).toBe(143);
  });
});
