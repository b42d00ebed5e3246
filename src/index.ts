export type {
  ChannelEvent,
  ChannelFigures,
  ChannelName,
  ChannelProgress,
  CompletedEvent,
  DrainedEvent,
  FailedEvent,
  ImageFacts,
  ListeningEvent,
  ProgressEvent,
  RunEvent,
  VerifiedEvent,
} from "./control/events.ts";
export { inspect } from "./control/inspect.ts";
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
  MappedBlockReport,
  MappedRamReport,
  StreamImageReport,
  UsedRange,
  VerifyReport,
} from "./control/reports.ts";
export { restore } from "./control/restore.ts";
export { save } from "./control/save.ts";
export { verify } from "./control/verify.ts";
export { ERROR_CODES, type ErrorCode, type ErrorDetails, MultifdError } from "./errors.ts";
