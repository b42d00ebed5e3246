import type { Connection } from "../channels/handover.ts";
import type { Identity } from "../pool/control-block.ts";
import type { TakenIn } from "../pool/messages.ts";

/** One connection of the run, in the order of accepting, which is not the order of channels. */
export interface Arrival {
  readonly number: number;
  readonly connection: Connection;
  readonly acceptedAt: number;
  /** It came when it was known already who takes part in the barriers. */
  readonly late: boolean;
  identity: Identity;
  /** null while it is being drained. */
  drained: TakenIn | null;
  /** It closed without a word: somebody looked whether the socket is there. */
  ignored: boolean;
}
