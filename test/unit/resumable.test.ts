import { expect, test } from "vitest";
import { type MarkOptions, refuseUnlessResumable, reportMark } from "../../src/control/instant/ran-on.ts";
import type { FoundMark } from "../../src/control/mapped-ram/resumed.ts";
import type { QemuIdentity } from "../../src/formats/mapped-ram/resumed.ts";
import { ALIVE, GONE, markOf } from "../support/marked-image.ts";

/** The code of the refusal, null if there is none, and what was warned of. */
function asked(found: FoundMark, peer: QemuIdentity | null, force = false): (string | null | number)[] {
  const warnings: string[] = [];
  const ignore = (): void => undefined;
  const log = {
    debug: ignore,
    info: ignore,
    error: ignore,
    warn: (_: object, text: string) => void warnings.push(text),
  };
  const options: MarkOptions = { image: "vm.mr", force, log };
  try {
    refuseUnlessResumable(reportMark(found), peer, options);
    return [null, warnings.length];
  } catch (error) {
    return [(error as { code: string }).code, warnings.length];
  }
}

test("the very QEMU of the mark gets the rest, and whoever cannot be told from it", () => {
  expect(asked(markOf(ALIVE), ALIVE)).toEqual([null, 0]);
  expect(asked(markOf(ALIVE), null)).toEqual([null, 0]);
  expect(asked(markOf(null), ALIVE)).toEqual([null, 0]);
});

test("another process, and one of another start or boot with its number, does not", () => {
  for (const other of [
    { ...ALIVE, pid: ALIVE.pid + 1 },
    { ...ALIVE, startTicks: ALIVE.startTicks + 1 },
    { ...ALIVE, bootId: GONE.bootId },
  ]) {
    expect(asked(markOf(ALIVE), other)).toEqual(["VM_MISMATCH", 0]);
    expect(asked(markOf(ALIVE), other, true)).toEqual([null, 1]);
  }
});

test("what was not resumed, is complete already, or cannot be read takes --force", () => {
  for (const [found, code] of [
    [null, "VM_MISMATCH"],
    [markOf(ALIVE, { completedMs: 1 }), "VM_RAN_ON"],
    ["unreadable", "IMAGE_DAMAGED"],
  ] as const) {
    expect(asked(found, ALIVE)).toEqual([code, 0]);
    expect(asked(found, ALIVE, true)).toEqual([null, 1]);
  }
});
