import { Buffer } from "node:buffer";
import { open } from "node:fs/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { restoreInstant } from "../../src/index.ts";
import { waitMigration } from "../../src/vm/migration.ts";
import { checkDirtyRam, currentPass } from "../support/dirty-ram.ts";
import {
  checkingGuest,
  listenAgain,
  listenForPostcopy,
  saveWalking,
  untilPass,
  wrongPagesOf,
} from "../support/instant-guests.ts";
import { InstantTrials, nameOfKills, randomKills } from "../support/instant-trials.ts";
import { Lab } from "../support/lab.ts";
import { describeEachQemu } from "../support/qemus.ts";
import { seededRandom } from "../support/random.ts";

const RAM = 64 * 2 ** 20;

describeEachQemu("a guest that checks its RAM runs while the rest of it comes", (binary) => {
  let lab: Lab;
  let trials: InstantTrials;
  beforeAll(async () => {
    lab = await Lab.open();
    trials = new InstantTrials(lab, binary);
    await trials.prepare();
  });
  afterAll(() => lab.close());

  test("nothing but what it asks for; then the source is gone, and another one goes on", async () => {
    const guest = await checkingGuest(lab, binary, RAM);
    const image = lab.file("image");
    const pass = await saveWalking(lab, guest, image);
    const into = await lab.waiting(guest.setup);
    const abort = new AbortController();
    const first = restoreInstant({
      ...{ image, connect: await listenForPostcopy(into.vm), backgroundRate: 0, signal: abort.signal },
      onEvent: ({ event }) => void (event === "running" && into.vm.qmp.execute("cont")),
    });
    const given = expect(first).rejects.toMatchObject({ code: "CANCELLED", details: { ran: true } });
    await untilPass(into, guest.walked, pass + 2);
    expect(await wrongPagesOf(into)).toBe(0);
    abort.abort();
    await given;

    const connect = (await listenAgain(into.vm, 1)) as string;
    const { instant } = await restoreInstant({ image, connect, resume: true });
    await waitMigration(into.vm.qmp, 60_000);
    expect(instant?.pagesSent).toBe(instant?.pages);
    await untilPass(into, guest.walked, pass + 4);
    await into.vm.qmp.execute("stop");
    expect(await wrongPagesOf(into)).toBe(0);
    expect(await checkDirtyRam(into.ram?.path as string, guest.walked)).toMatchObject({ violations: 0 });
    await into.vm.quit();
  });

  test("a page that is not what it was would be counted", async () => {
    const guest = await checkingGuest(lab, binary, RAM);
    const source = await lab.source(guest.setup);
    await source.vm.qmp.execute("cont");
    await untilPass(source, guest.walked, 2);
    await source.vm.qmp.execute("stop");
    const ram = await open(source.ram?.path as string, "r+");
    await ram.write(Buffer.alloc(8), 0, 8, guest.walked.start + 77 * 4096);
    await ram.close();
    const sequence = await currentPass(source.ram?.path as string, guest.walked);
    await source.vm.qmp.execute("cont");
    await untilPass(source, guest.walked, sequence + 2);
    expect(await wrongPagesOf(source)).toBe(1);
    await source.vm.quit();
  });

  test.each(["paused", "running"] as const)("a %s guest, and nothing happens to its source", async (kind) => {
    expect(await trials.try(kind, [])).toEqual({ killed: 0 });
  });

  test.each(["paused", "running"] as const)(
    "a %s guest whose source is killed in the middle",
    async (kind) => {
      const random = seededRandom();
      const kills = randomKills(random, 2, binary);
      const { killed } = await trials.try(kind, kills);
      expect(killed, `killed ${nameOfKills(kills)}, TEST_SEED=${random.seed}`).toBeGreaterThan(0);
    },
  );
});
