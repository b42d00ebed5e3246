/** One run of one way. Times are in milliseconds. */
export interface Sample {
  /**
   * What a user waits for. A save: from `migrate` until QEMU calls it completed and the receiving program, if there is one,
   * has ended. A restore: from the start of the helper, or from `migrate-incoming`, until QEMU calls it completed. All else:
   * the whole process.
   */
  readonly ms: number;
  /** Of the helper or the C program: the whole process, its start included. */
  readonly processMs?: number;
  /** What fsync of the file took afterwards: what the save left unsynced. */
  readonly syncMs?: number;
  /** From QEMU's `completed` to the end of the receiving program. */
  readonly tailMs?: number;
  readonly cpuSeconds?: number;
  readonly peakRssBytes?: number;
  /** The most by which Cached + Dirty of /proc/meminfo, without Shmem, was above what it was before. */
  readonly cacheGrowthBytes?: number;
}

/** All samples, by measurement and way; of a measurement, the n-th samples of all ways are of one round. */
export type Results = Readonly<Record<string, Readonly<Record<string, readonly Sample[]>>>>;
