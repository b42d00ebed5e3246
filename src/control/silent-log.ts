import type { Log } from "./options.ts";

const nothing = (): void => undefined;

/** For library users who gave no logger. */
export const SILENT: Log = { debug: nothing, info: nothing, warn: nothing, error: nothing };
