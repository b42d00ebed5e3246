import { execFileSync } from "node:child_process";
import { closeSync, fstatSync, openSync, readlinkSync, writeFileSync } from "node:fs";
import path from "node:path";
import { convert, inspect, save, saveVm, verify } from "../../src/index.ts";
import { libvirtHome } from "../../src/qmp/libvirt-home.ts";
import type { Monitor } from "../../src/qmp/monitor.ts";
import { connectVirsh } from "../../src/qmp/virsh.ts";
import { LIBVIRT_QEMU } from "./private-libvirt.ts";
import { type LibvirtSaves, saveByLibvirt } from "./virsh-saves.ts";

/** What the driver found out, for the test to judge. Failures are code and message. */
export interface VirshFindings {
  readonly none: Failure;
  readonly off: Failure;
  readonly connected: Pick<Monitor, "place" | "version" | "pid" | "passesFds">;
  readonly cmdline: string;
  readonly home: { readonly directory: string; readonly uid: number } | null;
  readonly status: unknown;
  readonly refused: Failure;
  readonly passed: { readonly file: string; readonly expected: string; readonly oursIsOpen: boolean };
  readonly silent: Failure;
  readonly saved: {
    readonly channels: number;
    readonly machine: string | null;
    readonly vmUuid: string | null;
  };
  readonly uuid: unknown;
  readonly afterSave: string;
  /** Saved by the product, which drives QEMU through virsh: first with --then resume, then with quit. */
  readonly driven: { readonly qemuVersion: string | null; readonly channels: number; readonly state: string };
  readonly afterQuit: string;
  readonly gone: Failure;
  /** The last image, converted for libvirt, and restored by it. */
  readonly converted: { readonly state: string };
  readonly byLibvirt: LibvirtSaves;
}

export interface Failure {
  readonly code: string;
  readonly message: string;
  readonly details: Readonly<Record<string, unknown>>;
}

const [directory = ""] = process.argv.slice(2);
const DOMAIN = "multifd tiny";
const PATIENCE = { timeoutMs: 60_000, uri: "qemu:///system" };
const XML = `<domain type='qemu'>
  <name>${DOMAIN}</name>
  <memory unit='MiB'>64</memory>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <devices>
    <emulator>${LIBVIRT_QEMU}</emulator>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
</domain>`;

const virsh = (...args: string[]): string =>
  execFileSync("virsh", ["--quiet", "-c", PATIENCE.uri, ...args], { encoding: "utf8" }).trim();

async function failure(promise: Promise<unknown>): Promise<Failure> {
  try {
    await promise;
  } catch (error) {
    const { code, message, details } = error as Failure;
    return { code, message, details };
  }
  return { code: "none", message: "it succeeded", details: {} };
}

/** Lets QEMU add a file of ours to an fdset. */
async function pass(monitor: Monitor): Promise<VirshFindings["passed"]> {
  const expected = path.join(directory, "passed");
  const fd = openSync(expected, "w");
  const added = (await monitor.execute("add-fd", { "fdset-id": 1 }, { fd })) as { fd: number };
  const file = readlinkSync(`/proc/${monitor.pid}/fd/${added.fd}`);
  const oursIsOpen = fstatSync(fd).isFile();
  closeSync(fd);
  return { file, expected, oursIsOpen };
}

/** QEMU hangs, and so does whoever asks it. */
async function silence(monitor: Monitor): Promise<Failure> {
  process.kill(monitor.pid ?? 0, "SIGSTOP");
  const silent = await failure(monitor.execute("query-status", undefined, { timeoutMs: 500 }));
  process.kill(monitor.pid ?? 0, "SIGCONT");
  return silent;
}

/** Four channels into an image, through a socket in the domain's own directory. */
async function saveThrough(
  monitor: Monitor,
  home: NonNullable<VirshFindings["home"]>,
): Promise<VirshFindings["saved"]> {
  const capabilities = [{ capability: "multifd", state: true }];
  await monitor.execute("migrate-set-capabilities", { capabilities });
  await monitor.execute("migrate-set-parameters", { "multifd-channels": 4, "max-bandwidth": 0 });
  const image = path.join(directory, "vm.mfd");
  const completed = await save({
    image,
    listen: `unix:${path.join(home.directory, "multifd")}`,
    channels: 4,
    allowUids: [home.uid],
    onEvent: (event) => {
      if (event.event === "listening") void monitor.execute("migrate", { uri: event.address });
    },
    confirm: async () => {
      for (;;) {
        const { status } = (await monitor.execute("query-migrate")) as { status: string };
        if (status === "completed") return "commit";
        if (status === "failed") return "abort";
      }
    },
  });
  await verify({ image });
  const { machine, vmUuid } = completed.image;
  return { channels: completed.channels.length, machine, vmUuid };
}

const none = await failure(connectVirsh("nobody", PATIENCE));
const definition = path.join(directory, "domain.xml");
writeFileSync(definition, XML);
virsh("define", definition);
const off = await failure(connectVirsh(DOMAIN, PATIENCE));
virsh("start", DOMAIN, "--paused");
try {
  const monitor = await connectVirsh(DOMAIN, PATIENCE);
  const home = await libvirtHome(monitor);
  const { place, version, pid, passesFds } = monitor;
  const findings: VirshFindings = {
    none,
    off,
    connected: { place, version, pid, passesFds },
    cmdline: execFileSync("ps", ["-o", "args=", "-p", `${pid}`], { encoding: "utf8" }),
    home,
    status: await monitor.execute("query-status"),
    refused: await failure(monitor.execute("fly", { to: 'the moon\'s "dark" side; $(reboot)' })),
    passed: await pass(monitor),
    silent: await silence(monitor),
    uuid: virsh("domuuid", DOMAIN),
    saved: await saveThrough(monitor, home ?? { directory, uid: 0 }),
    afterSave: virsh("domstate", DOMAIN, "--reason"),
    driven: await drive(monitor),
    ...(await end(monitor)),
    converted: await comeBack(),
    byLibvirt: await saveAnew(),
  };
  console.log(JSON.stringify(findings));
} finally {
  if (virsh("domstate", DOMAIN) !== "shut off") virsh("destroy", DOMAIN);
}

async function drive(monitor: Monitor): Promise<VirshFindings["driven"]> {
  await monitor.execute("cont");
  const vm = { virsh: DOMAIN, uri: PATIENCE.uri };
  const image = path.join(directory, "driven.mfd");
  await saveVm({ vm, image, afterwards: "resume" });
  await verify({ image });
  const { metadata } = await inspect({ image });
  return {
    qemuVersion: metadata?.qemuVersion ?? null,
    channels: metadata?.multifdChannels ?? 0,
    state: virsh("domstate", DOMAIN, "--reason"),
  };
}

async function saveAnew(): Promise<LibvirtSaves> {
  virsh("start", DOMAIN);
  return await saveByLibvirt(virsh, DOMAIN, directory);
}

/** What we saved of a running domain over four channels, compressed, is libvirt's again. */
async function comeBack(): Promise<VirshFindings["converted"]> {
  const output = path.join(directory, "converted.save");
  await convert({ image: path.join(directory, "last.mfd"), output, format: "libvirt" });
  virsh("restore", output);
  const state = virsh("domstate", DOMAIN, "--reason");
  virsh("destroy", DOMAIN);
  return { state };
}

async function end(monitor: Monitor): Promise<Pick<VirshFindings, "afterQuit" | "gone">> {
  const vm = { virsh: DOMAIN, uri: PATIENCE.uri };
  await saveVm({ vm, image: path.join(directory, "last.mfd"), afterwards: "quit", compression: "zstd" });
  const deadline = Date.now() + 10_000;
  while (!virsh("domstate", DOMAIN).startsWith("shut") && Date.now() < deadline);
  const afterQuit = virsh("domstate", DOMAIN, "--reason");
  return { afterQuit, gone: await failure(monitor.execute("query-status")) };
}
