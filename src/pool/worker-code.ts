/** Where a task's code lives. Files of workers/ are named by URL only: no module of src imports them. */
export interface WorkerCode {
  readonly url: URL;
  /** Name of the exported function. */
  readonly name: string;
}

export const DRAIN: WorkerCode = { url: new URL("../../workers/drain.js", import.meta.url), name: "drain" };
export const PLACE: WorkerCode = { url: new URL("../../workers/place.js", import.meta.url), name: "place" };
export const FEED: WorkerCode = { url: new URL("../../workers/feed.js", import.meta.url), name: "feed" };
export const SYNTHESISE: WorkerCode = {
  url: new URL("../../workers/synthesise.js", import.meta.url),
  name: "synthesise",
};
export const POSTCOPY: WorkerCode = {
  url: new URL("../../workers/postcopy.js", import.meta.url),
  name: "postcopy",
};
export const CHECK: WorkerCode = { url: new URL("../../workers/check.js", import.meta.url), name: "check" };
export const POUR: WorkerCode = { url: new URL("../../workers/pour.js", import.meta.url), name: "pour" };
export const WALK: WorkerCode = { url: new URL("../../workers/walk.js", import.meta.url), name: "walk" };
export const PAGES: WorkerCode = { url: new URL("../../workers/pages.js", import.meta.url), name: "pages" };
