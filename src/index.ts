export { type ConvertOptions, convert } from "./control/convert/convert.ts";
export { type BlockDiff, type DiffOptions, type DiffReport, diff } from "./control/convert/diff.ts";
export { type ExtractOptions, extract } from "./control/convert/extract.ts";
export type {
  ChannelEvent,
  ChannelFigures,
  ChannelName,
  ChannelProgress,
  CompletedEvent,
  DiskOverlay,
  DrainedEvent,
  FailedEvent,
  ImageFacts,
  ListeningEvent,
  ProgressEvent,
  QemuFigures,
  RunEvent,
  RunningEvent,
  VerifiedEvent,
  VmEvent,
} from "./control/events.ts";
export { domainXml } from "./control/foreign/domain-xml.ts";
export { inspect } from "./control/inspect.ts";
export { restoreInstant } from "./control/instant/instant.ts";
export type { InstantFigures, InstantOptions } from "./control/instant/options.ts";
export type {
  Expectations,
  InspectOptions,
  Log,
  RestoreOptions,
  SaveOptions,
  VerifyOptions,
} from "./control/options.ts";
export type {
  ChannelReport,
  DestinationNeeds,
  ImageReport,
  LibvirtReport,
  MappedBlockReport,
  MappedRamReport,
  QemuStreamReport,
  ResumedReport,
  StreamImageReport,
  UsedRange,
  VerifyReport,
} from "./control/reports.ts";
export { restore } from "./control/restore.ts";
export { save } from "./control/save.ts";
export { verify } from "./control/verify.ts";
export { ERROR_CODES, type ErrorCode, type ErrorDetails, MultifdError } from "./errors.ts";
export type { Then } from "./vm/guard/journal.ts";
export { type RecoverOptions, type Recovery, recover } from "./vm/guard/recover.ts";
export {
  type InstantVm,
  type LaunchInstantOptions,
  restoreLaunchedInstant,
} from "./vm/instant/launched-instant.ts";
export type { InstantVmOptions, ResumeInstantOptions } from "./vm/instant/options.ts";
export { restoreVmInstant } from "./vm/instant/restore-instant.ts";
export { resumeInstant } from "./vm/instant/resume-instant.ts";
export {
  type ManagedOutcome,
  type ManagedSaveAllOptions,
  type ManagedStartAllOptions,
  managedSaveAll,
  managedStartAll,
} from "./vm/managed/all.ts";
export {
  type ManagedImage,
  type ManagedRemoveOptions,
  type ManagedState,
  managedList,
  managedRemove,
} from "./vm/managed/list.ts";
export { type ManagedSaveOptions, managedSave } from "./vm/managed/managed-save.ts";
export { type ManagedStartOptions, managedStart, type StartedVm } from "./vm/managed/start.ts";
export type { LaunchedQemu, LaunchOptions, QemuExit } from "./vm/restore/launch.ts";
export { type LaunchedVm, restoreLaunched } from "./vm/restore/restore-launched.ts";
export { type RestoreVmOptions, restoreVm } from "./vm/restore/restore-vm.ts";
export type { LiveLimits } from "./vm/save/live-policy.ts";
export type { SaveVmOptions } from "./vm/save/options.ts";
export { saveVm } from "./vm/save/save-vm.ts";
export type { SnapshotVmOptions } from "./vm/snapshot/options.ts";
export { snapshotVm } from "./vm/snapshot/snapshot-vm.ts";
export type { VmTarget } from "./vm/target.ts";
