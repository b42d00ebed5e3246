import { entryPoint } from "../entry-points.ts";

/** Where a task's code lives. Files of workers/ are named by URL only: no module of src imports them. */
export interface WorkerCode {
  readonly url: URL;
  /** Name of the exported function. */
  readonly name: string;
}

export const DRAIN: WorkerCode = { url: entryPoint("workers/drain"), name: "drain" };
export const PLACE: WorkerCode = { url: entryPoint("workers/place"), name: "place" };
export const FEED: WorkerCode = { url: entryPoint("workers/feed"), name: "feed" };
export const SYNTHESISE: WorkerCode = {
  url: entryPoint("workers/synthesise"),
  name: "synthesise",
};
export const POSTCOPY: WorkerCode = {
  url: entryPoint("workers/postcopy"),
  name: "postcopy",
};
export const CHECK: WorkerCode = { url: entryPoint("workers/check"), name: "check" };
export const POUR: WorkerCode = { url: entryPoint("workers/pour"), name: "pour" };
export const WALK: WorkerCode = { url: entryPoint("workers/walk"), name: "walk" };
export const PAGES: WorkerCode = { url: entryPoint("workers/pages"), name: "pages" };
