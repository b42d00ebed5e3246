import { mkdir, symlink } from "node:fs/promises";
import { expect, test } from "vitest";
import { describeMachine, machineLines } from "../../../src/bench/machine.ts";
import { useScratch } from "../../support/scratch.ts";

const scratch = useScratch();

test("a machine is described, with the file system that the images will really lie in", async () => {
  const machine = await describeMachine("/proc");
  expect(machine.target).toMatchObject({ directory: "/proc", fileSystem: "proc", device: null, model: null });
  expect(machine.cores).toBeGreaterThan(0);
  expect(machine.memoryBytes).toBeGreaterThan(2 ** 28);
  expect(machineLines(machine).join("\n")).toContain(`Node.js ${process.versions.node}`);
});

test("a link is followed", async () => {
  await mkdir(scratch.file("real"));
  await symlink(scratch.file("real"), scratch.file("link"));
  const { target } = await describeMachine(scratch.file("link"));
  expect(target.directory).toBe(scratch.file("real"));
  expect(target.freeBytes).toBeGreaterThan(0);
});
