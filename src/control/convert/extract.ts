import { PLACE } from "../../pool/worker-code.ts";
import { throwIfAborted } from "../cancellation.ts";
import type { CompletedEvent } from "../events.ts";
import { DEFAULT_CHANNELS, type RunOptions, type SaveOptions } from "../options.ts";
import { runSave } from "../save-run.ts";
import { teller } from "../telling.ts";
import { checkExtractOptions } from "../validate.ts";
import { BlockFormat } from "./block-format.ts";
import { decisionOf, withSource } from "./source.ts";
import { transfer } from "./transfer.ts";

export interface ExtractOptions extends RunOptions, Pick<SaveOptions, "force" | "expectBytes"> {
  readonly output: string;
  /** Name of the RAMBlock, as inspect shows it. */
  readonly block: string;
}

/**
 * Writes the memory of one RAMBlock of a saved VM of any kind to a file: as many bytes as the block has, page n at
 * n × page size.
 * @throws MultifdError USAGE (no such block), UNSUPPORTED_STREAM, and what verify() and save() throw
 */
export async function extract(options: ExtractOptions): Promise<CompletedEvent> {
  checkExtractOptions(options);
  throwIfAborted(options.signal);
  const { output, block, force, expectBytes, directIo, workers, log } = options;
  const completed = await withSource(options, async (source) => {
    const plan = await source.plan(source.channels ?? DEFAULT_CHANNELS, true);
    return await transfer(options, plan, (intake) =>
      runSave(
        {
          ...{ ...intake, image: output, channels: plan.channels.length - 1, checksum: "none" },
          ...{ force, expectBytes, directIo, workers, log },
          ...decisionOf(source, force),
        },
        { code: PLACE, makeFormat: (parts) => new BlockFormat(parts, block) },
      ),
    );
  });
  teller(options)(completed);
  return completed;
}
