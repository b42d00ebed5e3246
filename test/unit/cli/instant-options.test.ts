import { Command } from "commander";
import { expect, test } from "vitest";
import {
  addInstantOptions,
  checkInstantFlags,
  hostPages,
  type InstantFlags,
  instantOptions,
  isInstant,
} from "../../../src/cli/instant-options.ts";
import { describeInstant, formatMicros, instantSentence } from "../../../src/cli/instant-words.ts";
import { describeProgress } from "../../../src/cli/progress-bar.ts";
import { SAMPLES } from "./samples.ts";

function parsed(...args: readonly string[]): InstantFlags {
  const command = addInstantOptions(new Command()).exitOverride();
  return command.parse(args, { from: "user" }).opts();
}

test("options become what the library is told", () => {
  const flags = parsed(
    ...["--instant", "--unverified", "--background-rate", "8M"],
    ...["--host-pages", "pc.ram=2M", "--host-pages", "/objects/hot=1G"],
  );
  expect(instantOptions(flags)).toEqual({ unverified: true, backgroundRate: 8 * 2 ** 20 });
  expect(hostPages(flags)).toEqual({ "pc.ram": 2 ** 21, "/objects/hot": 2 ** 30 });
  expect(instantOptions(parsed("--background-rate", "auto"))).toEqual({ backgroundRate: "auto" });
  expect(instantOptions(parsed("--background-rate", "0"))).toEqual({ backgroundRate: 0 });
  expect(hostPages(parsed())).toBeUndefined();
  expect([parsed(), parsed("--instant"), parsed("--resume")].map(isInstant)).toEqual([false, true, true]);
});

test.each([
  ["pc.ram", /--host-pages wants KEY=VALUE/],
  ["pc.ram=3M", /--host-pages wants a power of two of at least 4096 bytes, not "3M"/],
  ["pc.ram=2048", /power of two of at least 4096/],
])("host pages that are none: %s", (text, told) => {
  expect(() => parsed("--host-pages", text)).toThrow(told);
});

const QMP = { qmp: "/x" };
const INSTANT = { ...QMP, instant: true } as const;
const RESUME = { ...QMP, resume: true } as const;
const CONNECT = { connect: "unix:/x", instant: true } as const;

test.each<[string, Parameters<typeof checkInstantFlags>[0], RegExp]>([
  ["channels", { ...INSTANT, channels: 4 }, /--channels makes no sense together with --instant/],
  ["RAM that is zero", { ...CONNECT, zeroedRam: true }, /--zeroed-ram makes no sense together/],
  ["RAM to be emptied", { ...INSTANT, clearRam: true }, /--clear-ram makes no sense together/],
  ["an engine", { ...INSTANT, engine: "file" }, /--engine makes no sense together/],
  ["a rate of everything", { ...RESUME, rate: 1 }, /--rate makes no sense together with --resume/],
  ["a time-out of silence", { ...INSTANT, stallTimeout: 1 }, /--stall-timeout makes no sense together/],
  [
    "blocks to be verified",
    { ...INSTANT, verify: "blocks" },
    /--verify is one of first, lazy with --instant/,
  ],
  [
    "host pages that QEMU tells",
    { ...INSTANT, hostPages: [] },
    /--host-pages makes no sense without --connect/,
  ],
  ["a clone that nobody asks", { ...CONNECT, uuid: "x" }, /--uuid makes no sense together with --connect/],
  ["to resume a QEMU to come", { resume: true }, /--resume goes on in a QEMU that is there/],
  ["to resume and to decide", { ...RESUME, paused: true }, /--paused makes no sense together with --resume/],
  [
    "a rate of no background",
    { ...QMP, backgroundRate: 0 },
    /--background-rate makes no sense without --instant/,
  ],
  ["no checksums", { ...QMP, unverified: true }, /--unverified makes no sense without --instant/],
  ["verifying later", { ...QMP, verify: "lazy" }, /--verify lazy makes no sense without --instant/],
])("what makes no sense together is refused: %s", (_what, flags, told) => {
  expect(() => checkInstantFlags(flags)).toThrow(told);
});

test.each<[string, Parameters<typeof checkInstantFlags>[0]]>([
  ["of a QEMU that is driven", { ...INSTANT, verify: "first", backgroundRate: 0, paused: true, uuid: "x" }],
  ["of one that is fed", { ...CONNECT, hostPages: [["ram", 4096]], verify: "lazy", resume: true }],
  ["to go on", { ...RESUME, unverified: true }],
  ["of any other restore", { ...QMP, channels: 4, verify: "blocks" }],
])("what makes sense is not: %s", (_what, flags) => {
  checkInstantFlags(flags);
});

test("figures are rounded for people", () => {
  expect([0, 85.4, 999, 2300, 99_960, 250_000, 1_500_000].map(formatMicros)).toEqual([
    ...["0 µs", "85 µs", "999 µs", "2.3 ms", "100 ms", "250 ms", "1.5 s"],
  ]);
  const { instant } = SAMPLES.progress;
  const told =
    "ran after 12.5 ms  96 pages on demand, 928 in background  faults: 99 % within 86 µs, longest 2.3 ms";
  expect(describeInstant(instant)).toBe(told);
  expect(describeInstant({ ...instant, runningMs: null, faults: 0 })).toBe(
    "96 pages on demand, 928 in background  no faults",
  );
  expect(describeProgress(SAMPLES.progress)).toBe(`[##......................] 10 %  ${told}`);
});

test("the closing sentence tells when the VM ran, and how its RAM came", () => {
  const { instant } = SAMPLES.progress;
  expect(instantSentence("Restored", { ...SAMPLES.completed, instant })).toBe(
    "Restored from vm.mfd in 0.9 s, the VM's start after 12.5 ms: 4.0 MiB, 96 pages on demand and 928 in the background; faults: 99 % within 86 µs, longest 2.3 ms",
  );
  expect(instantSentence("Resumed", SAMPLES.completed)).toMatch(/^Resumed from vm.mfd in 0.9 s: 4.0 MiB, /);
});
