import { expect, test } from "vitest";
import { guestArgs } from "../../src/demo/guest.ts";

const base = { ramBytes: 64 * 2 ** 20, accelerator: "tcg" } as const;

test("RAM lives in the file, shared, and is the machine's only memory", () => {
  const args = guestArgs({ ...base, memory: { kind: "file", path: "/dev/shm/a,b" } });
  expect(JSON.parse(args[args.indexOf("-object") + 1] ?? "")).toEqual({
    id: "ram",
    size: 67108864,
    "qom-type": "memory-backend-file",
    "mem-path": "/dev/shm/a,b",
    share: true,
  });
  expect(args).toContain("q35,memory-backend=ram");
  expect(args).toEqual(expect.arrayContaining(["-nodefaults", "-S"]));
  expect(args).not.toContain("-incoming");
});

test("machine, incoming, disk and extra arguments are added when asked for", () => {
  const args = guestArgs({
    ...base,
    memory: { kind: "memfd", hugetlb: true },
    machine: "pc-q35-7.2",
    incoming: true,
    bootDisk: "/tmp/disk",
    extraArgs: ["-uuid", "1"],
  });
  expect(args).toContain("pc-q35-7.2,memory-backend=ram");
  expect(args.slice(args.indexOf("-incoming"))).toEqual(["-incoming", "defer", "-uuid", "1"]);
  expect(args.join(" ")).toMatch(/"hugetlb":true.*"filename":"\/tmp\/disk"/);
});
