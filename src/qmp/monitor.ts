import type { QmpEvent, QmpVersion } from "./messages.ts";

export interface ExecuteOptions {
  /** Bounds the answer, in milliseconds; the monitor's own bound if absent. */
  readonly timeoutMs?: number | undefined;
  /**
   * Runs it ahead of what QEMU is busy with (`exec-oob`), where this monitor can; elsewhere it waits its turn. QEMU
   * allows it for `yank`, `migrate-pause`, `migrate-recover` and `query-yank` alone and refuses others.
   */
  readonly outOfBand?: boolean | undefined;
  /**
   * A descriptor that travels with the command (SCM_RIGHTS), for `add-fd` and `getfd`. It stays ours and must be open
   * until the answer; QEMU has one of its own then. Only where `passesFds`, else INTERNAL.
   */
  readonly fd?: number | undefined;
}

/**
 * A QEMU that takes commands: over its own QMP socket, or through whoever holds that socket.
 * What fails rejects with MultifdError. MONITOR_UNREACHABLE: there was no monitor to begin with. QEMU_FAILED: refused
 * (details.class and details.text are QEMU's own words), or the monitor was lost, or did not answer in time
 * (details.awaited, details.timeoutMs).
 */
export interface Monitor {
  /** Where it is, for messages: the socket's path, or "domain NAME". */
  readonly place: string;
  /** What QEMU says of itself. */
  readonly version: QmpVersion;
  /** QEMU's process; null where it cannot be known. */
  readonly pid: number | null;
  /** Whether execute() can send a descriptor. */
  readonly passesFds: boolean;
  /**
   * Runs a command and answers what QEMU returns ({} for most). Commands run one after the other, in the order of the
   * calls. `quit` may reject although QEMU obeys: through libvirt its answer is lost now and then.
   */
  execute(command: string, args?: object, options?: ExecuteOptions): Promise<unknown>;
  /** Calls `listener` for every event from now on; returns how to stop that. Events may be lost: poll for what matters. */
  onEvent(listener: (event: QmpEvent) => void): () => void;
  /** The domain as libvirt defines it, secrets included; only where libvirt runs it. */
  readonly domainXml?: () => Promise<string>;
  /** Lets go of the monitor; QEMU itself runs on. What is outstanding rejects. */
  close(): Promise<void>;
}
