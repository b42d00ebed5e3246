import type { Expectations, TransferOptions } from "../options.ts";

/** An instant restore: the guest runs at once, and its RAM follows out of the image. */
export interface InstantOptions extends Omit<TransferOptions, "rate" | "stallTimeoutMs"> {
  /**
   * `unix:PATH` or `tcp:HOST:PORT` where the destination QEMU listens, with the capability postcopy-ram on and all others
   * off. With `resume`: where it listens after migrate-recover.
   */
  readonly connect: string;
  /** Refused before connecting when the image differs. */
  readonly expect?: Expectations | undefined;
  /** "lazy" (the default) checks each range before its first page is sent; "first" the whole image before the guest runs, too. */
  readonly verify?: "first" | "lazy" | undefined;
  /** Takes an image without checksums: damage in it would reach a guest that runs. */
  readonly unverified?: boolean | undefined;
  /**
   * What is sent besides the pages that the guest waits for: "auto" (the default) as fast as the disk allows while faults
   * stay short; bytes per second; or 0: nothing, so that the restore is complete only when the guest has touched every page.
   */
  readonly backgroundRate?: "auto" | number | undefined;
  /** Page size in bytes of the destination's RAMBlocks that do not lie in pages of 4096 bytes, by their names: hugetlbfs. */
  readonly hostPages?: Readonly<Record<string, number>> | undefined;
  /** Goes on with a restore whose helper is gone: QEMU is in the state postcopy-paused and listens after migrate-recover. */
  readonly resume?: boolean | undefined;
}

/** How an instant restore is getting on. Times are of pages that the guest waited for, from its request to the kernel's taking the page. */
export interface InstantFigures {
  /** Between the first byte and the moment at which QEMU had all devices and was told to run the guest; null: not yet, or before a resume. */
  readonly runningMs: number | null;
  /** Pages of the image; the others are zero, and are sent on request only. */
  readonly pages: number;
  readonly pagesSent: number;
  /** Of those sent, by this process: what the guest waited for, and what came along or in the background. */
  readonly pagesOnDemand: number;
  readonly pagesInBackground: number;
  /** Zero pages that the guest asked for. */
  readonly zeroPages: number;
  readonly faults: number;
  readonly faultMedianUs: number;
  readonly fault99Us: number;
  readonly faultLongestUs: number;
}
