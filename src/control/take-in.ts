import type { Address } from "../channels/address.ts";
import type { Connection } from "../channels/handover.ts";
import { Listener } from "../channels/listener.ts";
import type { MultifdError } from "../errors.ts";
import { Lazy } from "../lazy.ts";
import { type ControlBlock, MAX_CONNECTIONS } from "../pool/control-block.ts";
import type { TakenIn } from "../pool/messages.ts";
import { RunPool, threadCount } from "../pool/run-pool.ts";
import type { WorkerCode } from "../pool/worker-code.ts";
import { whenAborted } from "./cancellation.ts";
import type { Meter } from "./meter.ts";
import type { Log, SaveOptions } from "./options.ts";
import { countParties } from "./parties.ts";
import { Reception } from "./reception.ts";
import { SILENT } from "./silent-log.ts";
import { teller } from "./telling.ts";
import { DEFAULT_CONNECT_TIMEOUT_MS } from "./validate.ts";

export interface IntakePlan {
  readonly address: Address;
  readonly control: ControlBlock;
  readonly meter: Meter;
  /** What runs for each connection. */
  readonly code: WorkerCode;
  readonly intake: Intake;
  /** Whether no other threads are started while this runs. */
  readonly onlyPool?: boolean;
  /** About ten times a second. */
  readonly onTick?: () => void;
}

/** What becomes of the connections. */
export interface Intake {
  /** Whether connections wait for each other at barriers. */
  readonly barriers: boolean;
  /** Once, when somebody has come and before anything is written. */
  prepare(): Promise<void>;
  task(number: number, connection: Connection): object;
}

/** What of a save's options concerns its connections. */
export type IntakeOptions = Pick<
  SaveOptions,
  | "image"
  | "channels"
  | "connectTimeoutMs"
  | "stallTimeoutMs"
  | "signal"
  | "onEvent"
  | "log"
  | "workers"
  | "allowRemote"
  | "allowUids"
  | "discardBacklog"
>;

/**
 * Listens, and takes a migration in, each connection by a task of its own; tells of it. Socket, workers and connections are
 * gone when it returns: they go while `use` makes something of what was taken.
 * @throws MultifdError what `use` throws, the first failure of any connection, LISTEN_FAILED, CONNECT_TIMEOUT, STALLED, CANCELLED
 */
export async function takeIn<T>(
  plan: IntakePlan,
  options: IntakeOptions,
  use: (taken: readonly TakenIn[]) => Promise<T>,
): Promise<T> {
  const { control, meter, intake } = plan;
  const log = options.log ?? SILENT;
  const tell = teller(options);
  const pool = new Lazy(
    () =>
      new RunPool(
        plan.code,
        threadCount(options.workers, (options.channels ?? MAX_CONNECTIONS) + 1),
        plan.onlyPool,
      ),
  );
  let listener: Listener | null = null;
  const warnOfReturnPath = returnPathWarning(control, log);
  const reception = new Reception({
    control,
    channels: options.channels,
    connectTimeoutMs: options.connectTimeoutMs ?? DEFAULT_CONNECT_TIMEOUT_MS,
    stallTimeoutMs: options.stallTimeoutMs ?? 0,
    prepare: () => intake.prepare(),
    drain: async (number, connection) => pool.get().run<TakenIn>(intake.task(number, connection)),
    drainBacklog: async () => listener?.drainBacklog(),
    refused: () => listener?.refused ?? 0,
    onTick: () => {
      plan.onTick?.();
      const event = meter.sample(progressOf(reception, control));
      if (event !== null) tell(event);
      warnOfReturnPath();
    },
    onIdentified: (channel) => {
      log.debug({ channel }, "channel connected");
      tell({ event: "channel", channel });
    },
    onIgnored: (connection) => log.info({ connection }, "a connection closed without a word: ignored"),
  });
  const begin = async (listening: Listener): Promise<void> => {
    if (intake.barriers) await countParties(control, reception, listening);
  };
  const unwatch = whenAborted(options.signal, (error) => reception.fail(error));
  const gone = new Lazy(async () => {
    unwatch();
    control.setFinished();
    reception.close();
    await listener?.close();
    await pool.got?.close();
  });
  try {
    listener = await Listener.open(plan.address, {
      allowRemote: options.allowRemote ?? false,
      allowUids: options.allowUids ?? [],
      log,
      discardBacklog: options.discardBacklog ?? false,
      onConnection: (connection) => reception.accept(connection),
      onError: (error) => reception.fail(error),
    });
    tell({ event: "listening", address: listener.address });
    // Its threads load while QEMU is told to connect.
    pool.get();
    begin(listener).catch((error: MultifdError) => reception.fail(error));
    const taken = await reception.result;
    // Awaited below, whatever becomes of the taken.
    gone.get().catch(() => undefined);
    return await use(taken);
  } finally {
    await gone.get();
  }
}

function progressOf(reception: Reception, control: ControlBlock) {
  return reception.arrivals.flatMap(({ identity, number }) =>
    identity === "unknown" ? [] : [{ channel: identity, bytes: control.moved(number) }],
  );
}

function returnPathWarning(control: ControlBlock, log: Log): () => void {
  let warned = false;
  return () => {
    if (!control.returnPath || warned) return;
    warned = true;
    const text =
      "QEMU opened a return path and will wait at the end for an answer that a file cannot give: cancel the migration, switch the capability return-path off, and migrate again";
    log.warn({ channel: "main" }, text);
  };
}
