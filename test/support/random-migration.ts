import { Buffer } from "node:buffer";
import { seededRandom } from "./random.ts";
import { channelSteps } from "./random-migration-channels.ts";
import { mainSteps } from "./random-migration-main.ts";
import { type ModelBlock, randomLife } from "./random-migration-pages.ts";
import type { MigrationShape } from "./random-migration-shape.ts";

export interface RandomMigration {
  readonly shape: MigrationShape;
  readonly machine: string;
  /** 32 hex digits, as the channels' init packets have it. */
  readonly uuid: string;
  readonly main: Buffer;
  /** By their ids. */
  readonly channels: readonly Buffer[];
  /** Main and channels, each cut at every barrier of main and SYNC of the channel: what a step needs came in the one before. */
  readonly steps: { readonly main: readonly Buffer[]; readonly channels: readonly (readonly Buffer[])[] };
  /** The guest's RAM at its stop. */
  readonly blocks: readonly ModelBlock[];
  /** Hex digits of the commands on main, as the plain readers give them. */
  readonly commands: readonly string[];
  /** What main carries behind RAM: device sections, EOF byte, vmdescription. */
  readonly rest: Buffer;
}

export function buildRandomMigration(shape: MigrationShape): RandomMigration {
  const random = seededRandom(shape.seed);
  const life = randomLife(shape, random);
  const uuid = random.pick([0, 0xa5, 0x3c]).toString(16).padStart(2, "0").repeat(16);
  const channels = channelSteps(shape, life.epochs, uuid, random);
  const main = mainSteps(shape, life.epochs, uuid, random);
  return {
    ...{ shape, uuid, machine: main.machine, commands: main.commands, rest: main.rest },
    main: Buffer.concat(main.steps),
    channels: channels.map((steps) => Buffer.concat(steps)),
    steps: { main: main.steps, channels },
    blocks: life.blocks,
  };
}
