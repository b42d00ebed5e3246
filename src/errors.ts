/**
 * Every failure a user can meet has one stable code here. The exit status and the
 * meaning belong to the code, so that the contract page, the CLI and the library
 * can never disagree.
 */
export const ERROR_CODES = {
  INTERNAL: { exitStatus: 1, meaning: "a defect in multifd-helper itself" },
  WORKER_DIED: { exitStatus: 1, meaning: "a worker thread ended without an answer" },

  USAGE: { exitStatus: 2, meaning: "the command line or the options of a call make no sense" },

  PROTOCOL: { exitStatus: 3, meaning: "the peer does not speak QEMU's migration protocol as documented" },
  TLS_PEER: { exitStatus: 3, meaning: "the peer speaks TLS; tls-creds must be off" },
  CHANNEL_SET: { exitStatus: 3, meaning: "channels are missing, doubled or more than expected" },
  STREAM_INCOMPLETE: {
    exitStatus: 3,
    meaning: "the channels ended before the migration stream was complete",
  },
  UNSUPPORTED_STREAM: {
    exitStatus: 3,
    meaning: "the stream holds what the chosen format cannot carry; --format stream can",
  },
  STREAM_UNDECIDED: {
    exitStatus: 3,
    meaning: "nothing in the stream proves that it is complete; use --hold",
  },
  ABORTED: {
    exitStatus: 3,
    meaning: "the manager said abort, closed stdin under --hold, or ended itself",
  },
  CONNECT_FAILED: { exitStatus: 3, meaning: "no connection to the destination QEMU could be made" },
  DESTINATION_CLOSED: {
    exitStatus: 3,
    meaning: "the destination closed a channel before everything was delivered",
  },

  NOT_AN_IMAGE: { exitStatus: 4, meaning: "the file is no multifd-helper image" },
  UNSUPPORTED_VERSION: { exitStatus: 4, meaning: "the image needs a newer multifd-helper" },
  NOT_SEALED: { exitStatus: 4, meaning: "the image was never finished" },
  IMAGE_DAMAGED: { exitStatus: 4, meaning: "the image does not match its checksums or its own structure" },
  EXPECTATION_FAILED: { exitStatus: 4, meaning: "the image is not what --expect asked for" },

  VM_MISMATCH: { exitStatus: 4, meaning: "the destination is not the VM that was saved" },
  DISK_CHANGED: { exitStatus: 4, meaning: "a disk is not as it was when the image was saved" },
  VM_RAN_ON: {
    exitStatus: 4,
    meaning: "the VM ran on after it was saved, so that its disks do not fit the image",
  },
  RAM_NOT_EMPTY: { exitStatus: 4, meaning: "the destination's RAM holds data and the image needs it zeroed" },

  MANAGED_STATE: {
    exitStatus: 4,
    meaning: "the managed image may have run already, or there is none",
  },

  IO: { exitStatus: 5, meaning: "reading or writing failed" },
  NO_SPACE: { exitStatus: 5, meaning: "there is no room for the image" },
  READ_ONLY: { exitStatus: 5, meaning: "the target cannot be written" },
  DIRECT_IO_REFUSED: { exitStatus: 5, meaning: "O_DIRECT was demanded and is not possible here" },
  TARGET_REFUSED: { exitStatus: 5, meaning: "this kind of file cannot hold an image" },
  TARGET_BUSY: {
    exitStatus: 5,
    meaning: "a save is writing this image, a restore reads it, or it is in use",
  },
  LIMIT_EXCEEDED: { exitStatus: 5, meaning: "the stream grew beyond --max-bytes" },
  LISTEN_FAILED: { exitStatus: 5, meaning: "the migration socket could not be opened" },

  CONNECT_TIMEOUT: { exitStatus: 6, meaning: "the full set of channels did not connect in time" },
  STALLED: { exitStatus: 6, meaning: "no byte moved for as long as --stall-timeout allows" },

  QEMU_MISSING: { exitStatus: 7, meaning: "no usable QEMU was found" },
  MONITOR_UNREACHABLE: {
    exitStatus: 7,
    meaning: "no QEMU monitor answers there, or another client holds it",
  },
  VM_STATE: { exitStatus: 7, meaning: "the VM is not in a state in which this can be done" },
  QEMU_UNSUPPORTED: { exitStatus: 7, meaning: "this QEMU, or its host, cannot do what was asked" },
  QEMU_FAILED: { exitStatus: 7, meaning: "QEMU or QMP refused or failed" },

  CANCELLED: {
    exitStatus: 130,
    meaning: "cancelled by a signal or an AbortSignal; exit status is 128+signal",
  },
} as const;

export type ErrorCode = keyof typeof ERROR_CODES;

/** Facts about a failure for machines: channel, offset, path, errno … Only JSON values. */
export type ErrorDetails = Readonly<Record<string, string | number | boolean | null | undefined>>;

/** A failure as plain data: what crosses a thread boundary, where error classes do not survive. */
export interface Failure {
  readonly code: ErrorCode;
  readonly message: string;
  readonly details: ErrorDetails;
  readonly stack?: string | undefined;
}

/** The only error type that leaves this package. `message` is one sentence: what, where, what to do. */
export class MultifdError extends Error {
  override readonly name = "MultifdError";
  readonly code: ErrorCode;
  readonly details: ErrorDetails;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.details = details;
  }

  get exitStatus(): number {
    return ERROR_CODES[this.code].exitStatus;
  }
}

/** Turns anything thrown into plain data, keeping the code where there is one. */
export function toFailure(error: unknown): Failure {
  if (error instanceof MultifdError) {
    return { code: error.code, message: error.message, details: error.details, stack: error.stack };
  }
  const message = error instanceof Error ? error.message : String(error);
  return { code: "INTERNAL", message, details: {}, stack: error instanceof Error ? error.stack : undefined };
}

/** Rebuilds the typed error on the other side of a thread boundary. */
export function fromFailure(failure: Failure): MultifdError {
  const error = new MultifdError(failure.code, failure.message, failure.details);
  if (failure.stack !== undefined) error.stack = failure.stack;
  return error;
}
