import fs from "node:fs";
import type { CompletedEvent } from "../../control/events.ts";
import { MultifdError } from "../../errors.ts";
import type { SaveVmOptions } from "../save/options.ts";
import { saveVm } from "../save/save-vm.ts";
import type { VmTarget } from "../target.ts";
import { type ManagedPlace, managedPlace } from "./directory.ts";
import { withManagedLock } from "./lock.ts";

export interface ManagedSaveOptions extends Omit<SaveVmOptions, "image" | "offset" | "vm" | "afterwards"> {
  readonly name: string;
  /** Default: /var/lib/multifd-helper for root, $XDG_STATE_HOME/multifd-helper for everybody else. */
  readonly stateDirectory?: string | undefined;
  /** The VM's monitor; the one that start gave it when left out. */
  readonly vm?: VmTarget | undefined;
}

/**
 * Saves a VM to where managedStart() finds it, and ends it. A managed image that is there already is older than the VM
 * that runs: the new one takes its place once it is complete.
 * @throws MultifdError USAGE, TARGET_BUSY (somebody works on this name), MANAGED_STATE, and what saveVm() throws
 */
export async function managedSave(options: ManagedSaveOptions): Promise<CompletedEvent> {
  const { name, stateDirectory, vm, ...how } = options;
  const place = managedPlace(name, stateDirectory);
  return await withManagedLock(place, async () => {
    refuseLeftover(place);
    return await saveVm({ ...how, image: place.image, vm: vm ?? ownMonitor(place) });
  });
}

/** What a start left that was killed while it let the VM run is for somebody to decide on, not to be buried. */
function refuseLeftover({ name, resuming }: ManagedPlace): void {
  if (!fs.existsSync(resuming)) return;
  const text = `${resuming} is the state that a start of ${name} had just let run when it was killed: if the VM is that one, managed-remove ${name} forgets it, and then save`;
  throw new MultifdError("MANAGED_STATE", text, { path: resuming });
}

function ownMonitor({ name, qmp }: ManagedPlace): VmTarget {
  if (fs.existsSync(qmp)) return { qmp };
  throw new MultifdError("USAGE", `${name} was not started by start: say where its monitor is, --qmp PATH`);
}
