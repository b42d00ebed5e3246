import { chmod, mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { libvirtHome } from "../../src/qmp/libvirt-home.ts";
import { connectVirsh } from "../../src/qmp/virsh.ts";
import { describeWithLibvirt, LIBVIRT_UID, underLibvirt } from "../support/private-libvirt.ts";
import { describeEachQemu } from "../support/qemus.ts";
import { useScratch } from "../support/scratch.ts";
import type { VirshFindings } from "../support/virsh-driver.ts";
import { useVms } from "../support/vms.ts";

const scratch = useScratch();

describeWithLibvirt("a domain of a real libvirt", () => {
  test("is found, commanded, given descriptors, saved over four channels, ended, and saved by libvirt", async () => {
    const found = await underLibvirt<VirshFindings>(scratch.directory);

    expect(found.none).toMatchObject({
      code: "MONITOR_UNREACHABLE",
      message: expect.stringMatching(/^cannot use libvirt's domain nobody: failed to get domain 'nobody'/),
    });
    expect(found.off).toMatchObject({
      code: "MONITOR_UNREACHABLE",
      message: expect.stringContaining("domain is not running"),
    });

    expect(found.connected).toMatchObject({ place: "domain multifd tiny", passesFds: true });
    expect(found.cmdline).toContain("guest=multifd tiny");
    expect(found.home).toEqual({ directory: expect.stringContaining("/qemu/domain-1-"), uid: LIBVIRT_UID });
    expect(found.status).toMatchObject({ running: false });
    expect(found.refused).toEqual({
      code: "QEMU_FAILED",
      message: "QEMU refused fly: The command fly has not been found",
      details: { command: "fly", class: "CommandNotFound", text: "The command fly has not been found" },
    });
    expect(found.passed).toEqual({
      file: found.passed.expected,
      expected: found.passed.expected,
      oursIsOpen: true,
    });
    expect(found.silent).toMatchObject({
      code: "QEMU_FAILED",
      details: { awaited: "query-status", timeoutMs: 500 },
    });

    expect(found.saved).toMatchObject({ channels: 5, vmUuid: found.uuid });
    expect(found.afterSave).toBe("paused (user)");
    expect(found.driven).toMatchObject({ channels: 4, state: expect.stringMatching(/^running/) });
    expect(found.driven.qemuVersion).toMatch(/^7\.2\./);
    // "crashed" where libvirt sees QEMU's monitor close before it has read QEMU's last event.
    expect(found.afterQuit).toMatch(/^shut off \((shutdown|crashed)\)$/);
    expect(found.gone).toMatchObject({
      code: "QEMU_FAILED",
      message: expect.stringContaining("domain is not running"),
    });

    expect(found.converted.state).toMatch(/^running/);

    const { report, verified, xml, cookie, dumped, ours, restored } = found.byLibvirt;
    expect(report).toMatchObject({
      ...{ format: "libvirt", complete: true, running: false, imageFormat: "raw", version: 2, problem: null },
      ...{ vmUuid: found.uuid, contents: { format: "qemu-stream", verdict: "complete", reasons: [] } },
    });
    expect(verified).toMatchObject({ checked: "structure only", bytes: report.dataBytes });
    // virsh formats it anew, and fills in defaults.
    expect(dumped.split("\n")).toEqual(expect.arrayContaining(xml.trim().split("\n")));
    expect(cookie).toMatch(/^<cookie>/);
    expect(ours).toBe(dumped);
    expect(restored).toMatch(/^paused/);
  });
});

/** Failures of virsh that a real one shows only on other machines. */
describe("a virsh that", () => {
  const before = process.env.PATH;
  beforeEach(async () => {
    await mkdir(scratch.file("bin"));
    process.env.PATH = scratch.file("bin");
  });
  afterEach(() => {
    process.env.PATH = before;
  });

  async function virsh(script: string): Promise<void> {
    await writeFile(scratch.file("bin/virsh"), `#!/bin/sh\n${script}\n`);
    await chmod(scratch.file("bin/virsh"), 0o755);
  }

  async function failure(timeoutMs = 10_000): Promise<unknown> {
    return await connectVirsh("d", { timeoutMs, uri: "qemu:///system" }).then(
      () => expect.fail("it connected"),
      (error: unknown) => error,
    );
  }

  test("is not there", async () => {
    expect(await failure()).toMatchObject({
      code: "MONITOR_UNREACHABLE",
      message: "cannot use libvirt's domain d: there is no virsh; install libvirt's clients",
    });
  });

  test("finds no libvirt", async () => {
    await virsh(
      "echo 'error: failed to connect to the hypervisor' >&2; echo 'error: Failed to connect socket' >&2; exit 1",
    );
    expect(await failure()).toMatchObject({
      code: "MONITOR_UNREACHABLE",
      message: "cannot use libvirt's domain d: failed to connect to the hypervisor; Failed to connect socket",
    });
  });

  test("hangs is killed", async () => {
    await virsh("exec /bin/sleep 600");
    expect(await failure(100)).toMatchObject({
      code: "MONITOR_UNREACHABLE",
      details: { awaited: "query-version", timeoutMs: 100 },
    });
  });

  test("says something else", async () => {
    await virsh("echo '{}'");
    expect(await failure()).toMatchObject({ message: expect.stringContaining('virsh said "{}\\n"') });
  });

  test("is too old, or far away, passes no descriptors", async () => {
    await virsh(`case "$*" in
      *query-version*) echo '{"return":{"qemu":{"major":6,"minor":0,"micro":1},"package":""},"id":"libvirt-1"}' ;;
      *query-name*) echo '{"return":{"name":"d"}}' ;;
      *query-uuid*) echo '{"return":{"UUID":"00000000-0000-0000-0000-000000000000"}}' ;;
      *far*help*) echo "qemu-monitor-command <domain> [--hmp] [--pass-fds <string>]" ;;
      *help*) echo "qemu-monitor-command <domain> [--hmp]" ;;
      *uri) echo "$3" ;;
    esac`);
    const expected = { version: { major: 6, minor: 0, micro: 1, package: "" }, pid: null, passesFds: false };
    for (const uri of ["qemu:///system", "qemu+ssh://far/system"]) {
      const monitor = await connectVirsh("d", { timeoutMs: 10_000, uri });
      expect(monitor).toMatchObject(expected);
      await expect(monitor.execute("add-fd", {}, { fd: 0 })).rejects.toMatchObject({ code: "INTERNAL" });
    }
  });

  test("is let go of is killed, and takes no more commands", async () => {
    const pidFile = path.join(scratch.directory, "pid");
    await virsh(`case "$*" in
      *query-version*) echo '{"return":{"qemu":{"major":7,"minor":2,"micro":1},"package":""}}' ;;
      *uri) echo "$3" ;;
      *) echo $$ >${pidFile}; exec /bin/sleep 600 ;;
    esac`);
    const monitor = await connectVirsh("d", { timeoutMs: 10_000, uri: "qemu+ssh://far/system" });
    const outstanding = expect(monitor.execute("quit")).rejects.toMatchObject({ code: "QEMU_FAILED" });
    await expect.poll(() => import("node:fs").then((fs) => fs.existsSync(pidFile))).toBe(true);
    await monitor.close();
    await outstanding;
    await expect(monitor.execute("quit")).rejects.toMatchObject({ code: "QEMU_FAILED" });
  });
});

describeEachQemu("a QEMU without libvirt", (binary) => {
  const vms = useVms();

  test("has no home with it", async () => {
    const vm = await vms.startWith(binary, ["-machine", "none", "-nodefaults", "-display", "none", "-S"]);
    expect(await libvirtHome(vm.qmp)).toBeNull();
  });
});
