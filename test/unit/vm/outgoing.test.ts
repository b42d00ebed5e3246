import { expect, test } from "vitest";
import type { Monitor } from "../../../src/qmp/monitor.ts";
import type { QemuWatch } from "../../../src/vm/qemu-watch.ts";
import { watchOutgoing } from "../../../src/vm/save/outgoing.ts";

/** A QEMU whose migration has these statuses, one after the other, and that is told to go on as `told` says. */
function qemuWith(statuses: readonly string[]): { readonly monitor: Monitor; readonly told: string[] } {
  const left = [...statuses];
  const told: string[] = [];
  const execute = async (command: string): Promise<unknown> => {
    if (command === "query-migrate") return { status: left.shift() };
    told.push(command);
    return {};
  };
  return { monitor: { execute } as unknown as Monitor, told };
}

const ALIVE = {} as QemuWatch;

function watch(monitor: Monitor, mayEnd: () => boolean): Promise<unknown> {
  return watchOutgoing(monitor, ALIVE, new AbortController().signal, async () => undefined, mayEnd);
}

test("QEMU is told once to go on from its switchover, however long it says that it waits there", async () => {
  const { monitor, told } = qemuWith(["active", "pre-switchover", "pre-switchover", "device", "completed"]);
  await expect(watch(monitor, () => true)).resolves.toBe("completed");
  expect(told).toEqual(["migrate-continue"]);
});

test("a save that is being cancelled leaves QEMU at its switchover", async () => {
  const { monitor, told } = qemuWith(["pre-switchover", "pre-switchover", "cancelling", "cancelled"]);
  await expect(watch(monitor, () => false)).rejects.toMatchObject({ code: "QEMU_FAILED" });
  expect(told).toEqual([]);
});
