import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { type SaveOptions, save } from "../../src/index.ts";
import { FakePeer, tinyMigration } from "./fake-peer.ts";
import { type HelperOptions, type HelperProcess, type StartHelper, useHelpers } from "./helper-process.ts";
import { type Scratch, useScratch } from "./scratch.ts";

/** A `save` process that listens, and a peer to talk to it. */
export interface ListeningSave {
  readonly helper: HelperProcess;
  readonly peer: FakePeer;
  /** As the event `listening` has it. */
  readonly address: string;
}

export interface SaveKit {
  readonly scratch: Scratch;
  readonly start: StartHelper;
  /** Starts `save IMAGE --json` on a unix socket named "s" in the scratch directory, and waits for `listening`. */
  listening(image: string, args?: readonly string[], options?: HelperOptions): Promise<ListeningSave>;
  /** The command line of that save, for one that is expected not to get so far. */
  argsOf(image: string, args?: readonly string[]): string[];
}

/** What tests of the save side share. */
export function useSaves(): SaveKit {
  const scratch = useScratch();
  const start = useHelpers();
  const argsOf = (image: string, args: readonly string[] = []): string[] => [
    ...["save", image, "--json"],
    ...(args.includes("--listen") ? [] : ["--listen", `unix:${scratch.file("s")}`]),
    ...args,
  ];
  return {
    scratch,
    start,
    argsOf,
    async listening(image, args, options) {
      const helper = start(argsOf(image, args), options);
      const address = String((await helper.waitEvent("listening")).address);
      return { helper, peer: new FakePeer(address), address };
    },
  };
}

/** A save through the library, of what a test needs beforehand. */
export async function savedBefore(
  image: string,
  streams: readonly Uint8Array[],
  options: Partial<SaveOptions> = {},
): Promise<void> {
  const directory = await mkdtemp(path.join(tmpdir(), "mfd-before-"));
  try {
    await save({
      image,
      listen: `unix:${path.join(directory, "s")}`,
      workers: 1,
      ...options,
      onEvent: (event) => {
        if (event.event === "listening") void new FakePeer(event.address).play(streams);
      },
    });
  } finally {
    await rm(directory, { recursive: true });
  }
}

let good: Promise<Buffer> | undefined;

/** A sealed image as it may have stood at the target before the save under test. Made once, through the library. */
export function goodImage(): Promise<Buffer> {
  good ??= makeImage();
  return good;
}

async function makeImage(): Promise<Buffer> {
  const directory = await mkdtemp(path.join(tmpdir(), "mfd-good-"));
  const image = path.join(directory, "vm.mfd");
  await savedBefore(image, tinyMigration());
  const bytes = await readFile(image);
  await rm(directory, { recursive: true });
  return bytes;
}
