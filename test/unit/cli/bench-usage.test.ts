import { expect, test } from "vitest";
import { runCommand } from "./run-cli.ts";

const MISTAKES: readonly (readonly [mistake: string, args: readonly string[], told: RegExp])[] = [
  ["no channel at all", ["--channels", "0"], /--channels wants a whole number from 1 to 255, not "0"/],
  ["a list with a hole", ["--channels", "1,,4"], /--channels wants a whole number from 1 to 255, not ""/],
  ["a value twice", ["--channels", "4,2,4"], /--channels has a value twice: "4,2,4"/],
  ["workers that are none", ["--workers", "some"], /--workers wants a whole number/],
  ["a format that is none", ["--format", "stream,raw"], /--format is one of stream, mapped-ram, not "raw"/],
  ["an operation that is none", ["--operation", "load"], /--operation is one of save, restore, verify/],
  ["too little RAM", ["--ram", "1M"], /--ram wants whole MiB, at least 16M/],
  ["no round", ["--rounds", "0"], /--rounds wants a whole number from 1/],
  ["the generator's pages for QEMU", ["--qemu", "/q", "--pages", "zero"], /with --fill/],
  ["QEMU's RAM for the generator", ["--fill", "zero"], /with --pages/],
  ["a directory for a page", ["--html", "/tmp"], /\/tmp is a directory/],
  ["a sweep of nothing", ["--channels", "1", "--workers", "9"], /no combination can be measured here/],
];

test.concurrent.each(MISTAKES)("%s is refused in one sentence", async (_, args, told) => {
  const { status, stdout, stderr } = await runCommand("bench", ...args);
  expect(stdout).toBe("");
  expect(stderr).toMatch(told);
  expect(stderr).toMatch(/^multifd-helper: [^\n]+ \[USAGE\]\n$/);
  expect(status).toBe(2);
});

test("a directory that is none, and room that is none, are refused before anything is measured", async () => {
  const nowhere = await runCommand("bench", "--dir", "/nowhere/at/all");
  expect(nowhere).toMatchObject({ status: 5, stderr: expect.stringContaining("/nowhere/at/all") });
  const huge = await runCommand("bench", "--ram", "1000000G");
  expect(huge).toMatchObject({
    status: 5,
    stderr: expect.stringMatching(/room for .* of image.*\[NO_SPACE\]/),
  });
});

test("charts that cannot be written are refused before anything is measured, and told to programs, too", async () => {
  const { status, stdout } = await runCommand("bench", "--svg", "/nowhere/at/all.svg", "--json");
  expect(JSON.parse(stdout)).toMatchObject({ event: "failed", code: "IO" });
  expect(stdout).toContain("/nowhere/at/all.svg");
  expect(status).toBe(5);
});
