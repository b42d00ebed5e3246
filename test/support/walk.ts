import type { Buffer } from "node:buffer";
import { ChannelWalker } from "../../src/formats/migration/channel-walker.ts";
import { type Completeness, judgeCompleteness } from "../../src/formats/migration/completeness.ts";
import type { ChannelSummary, MainSummary, MultifdSummary } from "../../src/formats/migration/summary.ts";
import type { FakeMigration } from "./fake-migration.ts";

export function walkStream(stream: Buffer): ChannelSummary {
  const walker = new ChannelWalker();
  walker.push(stream);
  return walker.finish();
}

/** Walks each stream on its own and sorts them by what they say they are, as an acceptor would. */
function walkAll(streams: readonly Buffer[]): { main: MainSummary | null; channels: MultifdSummary[] } {
  const summaries = streams.map(walkStream);
  return {
    main: summaries.find((summary) => summary.kind === "main") ?? null,
    channels: summaries.filter((summary) => summary.kind === "multifd"),
  };
}

export interface Walked {
  readonly main: MainSummary;
  readonly channels: readonly MultifdSummary[];
}

export function walkMigration(migration: FakeMigration): Walked {
  const { main, channels } = walkAll([migration.main, ...migration.channels]);
  if (main === null) throw new TypeError("the migration has no main stream");
  return { main, channels };
}

export function judge(migration: FakeMigration): Completeness {
  const { main, channels } = walkAll([migration.main, ...migration.channels]);
  return judgeCompleteness(main, channels);
}
