import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readdir, readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { figureOf } from "../../src/bench/chart.ts";
import { Generator } from "../../src/bench/generator/generator.ts";
import { PACKET_RAM_BYTES } from "../../src/bench/generator/packets.ts";
import { MAIN } from "../../src/entry-points.ts";
import { extract, save } from "../../src/index.ts";
import { describeBothQemus } from "../support/qemus.ts";
import { runWell } from "../support/run.ts";
import { useScratch } from "../support/scratch.ts";

const MIB = 2 ** 20;
const RAM = 64 * MIB;
const scratch = useScratch();

/** A whole benchmark in the scratch directory; answers what it tells programs. */
async function bench(...args: readonly string[]) {
  const where = ["--dir", scratch.directory, "--rounds", "1", "--ram", String(RAM), "--json"];
  return JSON.parse(await runWell(process.execPath, [MAIN, "bench", ...args, ...where]));
}

interface Told {
  readonly operation: string;
  readonly format: string;
  readonly samples: readonly Readonly<Record<string, number | null>>[];
}

describe("bench with the generator", () => {
  test("saves, restores and verifies in both formats, and draws what it has measured", async () => {
    const files = ["--svg", scratch.file("b.svg"), "--html", scratch.file("b.html")];
    const all = ["--operation", "save,restore,verify", "--channels", "2", ...files];
    const { results, machine, recommended } = await bench(...all);
    const measured = results.map(({ operation, format }: Told) => `${operation} ${format}`);
    const both = (operation: string) => [`${operation} stream`, `${operation} mapped-ram`];
    expect(measured).toEqual([...both("save"), ...both("restore"), ...both("verify")]);
    for (const { operation, samples } of results as Told[]) {
      expect(samples).toHaveLength(1);
      const [sample] = samples;
      expect(sample?.bytes).toBeGreaterThanOrEqual(RAM);
      expect(sample?.cpuSeconds).toBeGreaterThan(0);
      expect(sample?.peakRssBytes).toBeGreaterThan(20 * MIB);
      expect(typeof sample?.listeningMs).toBe(operation === "save" ? "number" : "object");
      expect(sample?.qemuCpuSeconds).toBeNull();
    }
    expect(machine.target.directory).toBe(scratch.directory);
    expect(recommended).toMatchObject({ operation: "save", channels: 2 });
    expect(await scratch.names()).toEqual(["b.html", "b.svg"]);

    const svg = (await scratch.read("b.svg")).toString();
    expect(svg).toContain("save: throughput");
    for (const { figures } of results) expect(svg).toContain(`>${figureOf(figures.gibPerSecond.median)}<`);
    const page = (await scratch.read("b.html")).toString();
    expect(page).toContain("recommended here: --channels 2 --format");
    expect(page).toContain("CPU s/GiB");
  });

  test("what the generator sends is a guest's RAM, every page at its place", async () => {
    const generator = new Generator(RAM, "mix");
    const [image, ram] = [scratch.file("image"), scratch.file("ram")];
    try {
      await save({
        image,
        listen: `unix:${scratch.file("s")}`,
        format: "mapped-ram",
        onEvent: (event) => {
          const { signal } = new AbortController();
          if (event.event === "listening") void generator.migrate(event.address, 3, signal);
        },
      });
    } finally {
      await generator.close();
    }
    await extract({ image, output: ram, block: "pc.ram" });
    const bytes = await readFile(ram);
    expect(bytes.length).toBe(RAM);
    // The same packets come again and again, and what zero pages they have is between pages with data.
    const half = 32 * PACKET_RAM_BYTES;
    expect(bytes.subarray(0, half).equals(bytes.subarray(half, 2 * half))).toBe(true);
    const pages = Array.from({ length: half / 4096 }, (_, n) => bytes.subarray(4096 * n, 4096 * (n + 1)));
    const zeros = pages.filter((page) => page.equals(Buffer.alloc(4096))).length;
    expect(zeros).toBeGreaterThan(pages.length / 10);
    expect(zeros).toBeLessThan(pages.length * 0.9);
    expect(new Set(pages.map((page) => page.toString("latin1"))).size).toBeGreaterThan(pages.length / 10);
  });
});

describeBothQemus("bench with a real guest", ({ ten }) => {
  test("saves and restores, and tells what QEMU took", async () => {
    const what = ["--operation", "save,restore", "--format", "stream", "--channels", "2", "--fill", "mix"];
    const { results, source } = await bench("--qemu", ten.path, ...what);
    expect(source).toMatchObject({ kind: "qemu", version: ten.version, fill: "mix" });
    expect(results.map(({ operation }: Told) => operation)).toEqual(["save", "restore"]);
    for (const { samples } of results as Told[]) {
      expect(samples[0]?.qemuCpuSeconds).toBeGreaterThanOrEqual(0);
      // Zero pages are not stored.
      expect(samples[0]?.bytes).toBeLessThan(RAM);
    }
    expect(await scratch.names()).toEqual([]);
  });
});

describe("an end before the end", () => {
  test("SIGINT leaves no file, no socket and no process", async () => {
    const [images, sockets] = [scratch.file("images"), scratch.file("sockets")];
    await Promise.all([mkdir(images), mkdir(sockets)]);
    const args = [MAIN, "bench", "--dir", images, "--ram", "256M", "--rounds", "9"];
    const env = { ...process.env, TMPDIR: sockets };
    const child = spawn(process.execPath, args, { env, stdio: ["ignore", "ignore", "pipe"] });
    let told = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      told += text;
    });
    const ended = once(child, "close");
    // In the middle of a save: its partial image is there.
    for (let files: string[] = []; !files.some((name) => name.includes("bench.image")); await sleep(5)) {
      files = await readdir(images, { recursive: true });
    }
    const helpers = await childrenOf(child.pid as number);
    expect(helpers).toHaveLength(1);
    child.kill("SIGINT");
    expect(await ended).toEqual([130, null]);
    expect(told).toMatch(/multifd-helper: cancelled by SIGINT \[CANCELLED\]\n$/);
    expect(await readdir(images)).toEqual([]);
    expect(await readdir(sockets)).toEqual([]);
    expect(() => process.kill(helpers[0] as number, 0)).toThrow("ESRCH");
  });
});

async function childrenOf(pid: number): Promise<number[]> {
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8");
  return text.trim().split(" ").filter(Boolean).map(Number);
}
