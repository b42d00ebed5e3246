/** What stands at the other end of a helper's channels, at both ends of an image's life. */
export interface Peer {
  /** The guest's RAM, in bytes. */
  readonly ramBytes: number;
  /**
   * Migrates into a helper that listens, as QEMU does on `migrate`. Resolves when all was sent and the peer calls it
   * completed; rejects when that did not work. Once the signal aborts it stops as soon as the helper has ended.
   */
  migrate(address: string, channels: number, signal: AbortSignal): Promise<PeerShare>;
  /** Waits for a migration that comes in. */
  listen(channels: number): Promise<Destination>;
  close(): Promise<void>;
}

/** What the peer did of one migration. */
export interface PeerShare {
  /** When it called the migration completed, on the clock of performance.now(). */
  readonly completedAt: number;
  /** Processor time that it took; null: the peer is not what is measured. */
  readonly cpuSeconds: number | null;
}

export interface Destination {
  /** unix:PATH */
  readonly address: string;
  /** Resolves when the peer calls the migration completed. */
  readonly completed: Promise<PeerShare>;
  close(): Promise<void>;
}
