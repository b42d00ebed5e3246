import { throwIfAborted } from "../../control/cancellation.ts";
import { DOMAIN_XML } from "../../control/convert/libvirt-format.ts";
import type { CompletedEvent } from "../../control/events.ts";
import { DEFAULT_CHANNELS } from "../../control/options.ts";
import { SILENT } from "../../control/silent-log.ts";
import { MultifdError } from "../../errors.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import { recordDisks } from "../disks/record.ts";
import { type VmSession, withVm } from "../session.ts";
import type { Engine } from "./engine.ts";
import { FileEngine } from "./file-engine.ts";
import { HelperEngine } from "./helper-engine.ts";
import { LivePolicy } from "./live-policy.ts";
import type { SaveVmOptions } from "./options.ts";
import type { SavePlan } from "./plan.ts";
import { refuseBackups, refuseUnfit } from "./refusals.ts";
import { settingsFor } from "./settings-for-save.ts";
import { VmSave } from "./vm-save.ts";

/**
 * Saves a VM: stops it, or lets it run (`live`), migrates it into an image, and does with it what `afterwards` says, once the image
 * is on disk. Whatever fails before that, the VM runs on as it did, with its settings as they were; a guardian process
 * sees to it even when this one is killed.
 * @throws MultifdError MONITOR_UNREACHABLE, VM_STATE, QEMU_UNSUPPORTED, QEMU_FAILED, and what save() throws
 */
export async function saveVm(options: SaveVmOptions): Promise<CompletedEvent> {
  throwIfAborted(options.signal);
  return await withVm(options.vm, async (session) => {
    const { monitor, survey } = session;
    refuseUnfit(survey, monitor);
    await refuseBackups(monitor);
    checkCompression(options);
    const described = { ...options, meta: { ...(await domainOf(monitor, options)), ...options.meta } };
    const engine = engineFor(session, described);
    return await new VmSave(session, described, planOf(session, described), engine).execute();
  });
}

/** What libvirt needs to make the domain again: an image that is converted for it begins with that. */
async function domainOf(
  { domainXml }: Monitor,
  { log = SILENT }: SaveVmOptions,
): Promise<Record<string, string>> {
  if (domainXml === undefined) return {};
  try {
    return { [DOMAIN_XML]: await domainXml() };
  } catch (error) {
    log.warn({}, `the image will not have the domain's XML: ${(error as Error).message}`);
    return {};
  }
}

function engineFor({ monitor, survey }: VmSession, options: SaveVmOptions): Engine {
  const { engine = "helper", channels = DEFAULT_CHANNELS, compression = "none" } = options;
  if (engine === "helper") return new HelperEngine(options, channels, monitor);
  if (options.format === "stream") {
    const text =
      "--format stream does not go together with --engine file, with which QEMU writes a mapped-ram image: leave one of them out";
    throw new MultifdError("USAGE", text);
  }
  if (options.maxBytes !== undefined) {
    const text =
      "--max-bytes does not go together with --engine file: QEMU writes as much as it has; leave it out, or use --engine helper";
    throw new MultifdError("USAGE", text);
  }
  if (compression === "none") return new FileEngine(options, channels, monitor, survey.uuid);
  const text = `--compression ${compression} does not go together with --engine file: a mapped-ram image holds each page at its own place; leave it out, or use --engine helper`;
  throw new MultifdError("USAGE", text);
}

/** QEMU compresses what goes over multifd channels only. */
function checkCompression({ channels, compression = "none" }: SaveVmOptions): void {
  if (channels !== 0 || compression === "none") return;
  const text = `--compression ${compression} needs channels, and --channels 0 has none: leave one of them out`;
  throw new MultifdError("USAGE", text);
}

function planOf({ monitor }: VmSession, options: SaveVmOptions): SavePlan {
  const { afterwards = "quit", live } = options;
  const plan: SavePlan = {
    wanted: settingsFor(options),
    stopFirst: live === undefined,
    disks: () => recordDisks(monitor),
    ranOn: afterwards === "resume",
    afterwards,
  };
  if (live === undefined) return plan;
  const policy = new LivePolicy(monitor, live);
  return { ...plan, look: (figures) => policy.look(figures) };
}
