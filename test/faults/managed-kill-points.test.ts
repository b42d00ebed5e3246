import { mkdir, readdir } from "node:fs/promises";
import { beforeEach, expect, test } from "vitest";
import type { FaultSpec } from "../support/fault-spec.ts";
import { withFault } from "../support/fault-spec.ts";
import type { HelperOptions } from "../support/helper-process.ts";
import { useNamedVms } from "../support/named-vms.ts";
import { describeEachQemu } from "../support/qemus.ts";
import { at, START, type StartStep, type Step } from "../support/start-steps.ts";

/** ended: QEMU is gone and its VM never ran. ran: it runs on. either: QEMU had the word when its sender died. */
type Fate = "ended" | "runs" | "either";

/** What a SIGKILL on either side of each step leaves. The image: NAME.mfd, the same with .resuming, or none. */
const TABLE: readonly (readonly [StartStep, "before" | "after", image: string | null, Fate])[] = [
  ["rename", "before", "web.mfd", "ended"],
  ["rename", "after", "web.mfd.resuming", "ended"],
  ["directory flushed after the rename", "before", "web.mfd.resuming", "ended"],
  ["directory flushed after the rename", "after", "web.mfd.resuming", "ended"],
  ["word to the guardian", "before", "web.mfd.resuming", "ended"],
  ["word to the guardian", "after", "web.mfd.resuming", "ended"],
  ["cont", "before", "web.mfd.resuming", "ended"],
  ["cont", "after", "web.mfd.resuming", "either"],
  ["guardian dismissed", "before", "web.mfd.resuming", "runs"],
  ["guardian dismissed", "after", "web.mfd.resuming", "runs"],
  ["removal", "before", "web.mfd.resuming", "runs"],
  ["removal", "after", null, "runs"],
  ["directory flushed after the removal", "before", null, "runs"],
  ["directory flushed after the removal", "after", null, "runs"],
];

const OF_QEMU: readonly string[] = ["word to the guardian", "cont", "guardian dismissed"];

describeEachQemu("a start that is killed", (binary) => {
  const vms = useNamedVms(binary);
  beforeEach(() => vms.saved("web"));

  /** With a directory for temporary files in which a leftover shows. */
  async function killedAt(step: Step, when: "before" | "after"): Promise<HelperOptions> {
    await mkdir(vms.file("tmp"));
    const options = withFault({ thread: "main", when, act: "kill", ...step });
    return { ...options, shell: `export TMPDIR='${vms.file("tmp")}'; ${options.shell}` };
  }

  // What only QEMU makes a difference for is tried with both.
  const oldest = binary.major < 10;
  const points = TABLE.filter(([step]) => oldest || OF_QEMU.includes(step));

  test.each(points)("%s, %s it: %s, VM %s", async (step, when, image, fate) => {
    const told = (await vms.serial("web").lines()).length;
    const killed = vms.run(["start", "web", "--detach"], await killedAt(START[step], when));
    expect(await killed.exit()).toBe("SIGKILL");
    expect(await readdir(vms.file("tmp"))).toEqual([]);

    // Its guardian has ended, too: nothing changes any more.
    const runs = fate === "runs" || (fate === "either" && vms.qemus().length > 0);
    if (runs) await vms.serial("web").waitForLine(/^count/, { from: told });
    else await vms.noQemus();
    expect(await vms.images()).toEqual(image === null ? [] : [image]);

    const again = vms.run(["start", "web", "--detach"]);
    if (runs) expect(await again.failure()).toMatchObject({ code: "VM_STATE", status: 7 });
    else if (image === "web.mfd") await again.waitEvent("started");
    else expect(await again.failure()).toMatchObject({ code: "MANAGED_STATE", status: 4 });

    if (image === "web.mfd") await vms.serial("web").waitForLine(/^count/, { from: told });
    await vms.endQemus();
    const { length } = await vms.oneLife("web");
    if (fate === "ended" && image !== "web.mfd") expect(length).toBe(told);
  });
});

describeEachQemu("a managed save that is killed", (binary) => {
  const vms = useNamedVms(binary);

  const POINTS = [
    ["its image gets its name", "before", at("renameSync", "multifd-partial"), "runs"],
    ["its image gets its name", "after", at("renameSync", "multifd-partial"), "ended"],
    ["quit", "before", at("send", '"quit"'), "ended"],
    ["quit", "after", at("send", '"quit"'), "ended"],
  ] as const;

  const side = binary.major >= 10 ? "after" : "before";

  test.each(POINTS.filter(([, when]) => when === side))(
    "%s, %s it: one VM",
    async (_step, when, place, fate) => {
      await vms.start("web", await vms.command("web"));
      const fault: FaultSpec = { thread: "main", when, act: "kill", ...place };
      const killed = vms.run(["managed-save", "web"], withFault(fault));
      expect(await killed.exit()).toBe("SIGKILL");
      if (fate === "runs") {
        expect(await vms.images()).not.toContain("web.mfd");
        const told = (await vms.serial("web").lines()).length;
        await vms.serial("web").waitForLine(/^count/, { from: told });
        await vms.run(["managed-save", "web"]).success();
      } else await vms.noQemus();
      expect(await vms.images()).toEqual(["web.mfd"]);
      await vms.start("web");
      await vms.endQemus();
      await vms.oneLife("web");
    },
  );
});
