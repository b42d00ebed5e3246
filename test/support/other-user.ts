import { execFileSync } from "node:child_process";
import { describe, test } from "vitest";
import { MAIN } from "../../src/entry-points.ts";

/** Two users that own nothing here. */
export const NOBODY = 65534;
export const STRANGER = 54321;

/** Does something at once, within this call, with the rights of another user. Only root can. */
export function asUser<T>(uid: number, act: () => T): T {
  const seteuid = process.seteuid as (id: number) => void;
  const setegid = process.setegid as (id: number) => void;
  setegid(uid);
  seteuid(uid);
  try {
    return act();
  } finally {
    seteuid(0);
    setegid(0);
  }
}

/** A suite that acts as other users; says loudly that it did not run where only root could. */
export function describeAsRoot(title: string, body: () => void): void {
  suite(title, "root", process.geteuid?.() === 0, body);
}

/** A suite whose helper runs as another user, who must be able to read Node and the build. */
export function describeAsOtherUser(title: string, body: () => void): void {
  suite(
    title,
    "root, and a checkout that everybody may read",
    process.geteuid?.() === 0 && nobodyCanRun(),
    body,
  );
}

function nobodyCanRun(): boolean {
  try {
    const who = { uid: NOBODY, gid: NOBODY, stdio: "ignore" } as const;
    execFileSync(process.execPath, [MAIN, "capabilities"], who);
    return true;
  } catch {
    return false;
  }
}

function suite(title: string, need: string, met: boolean, body: () => void): void {
  if (met) {
    describe(title, body);
    return;
  }
  console.warn(`\n*** NOT TESTED: ${title} needs ${need} ***\n`);
  describe.runIf(false)(title, () => test(`needs ${need}`, () => {}));
}
