/** Where an image is written to. Opened by `openTarget`; exactly one of publish and discard ends it. */
export interface Target {
  /** Open for writing; the target owns it. */
  readonly fd: number;
  /** Absolute path of the file that is written, which may be a temporary one; null where only the descriptor leads to it. */
  readonly path: string | null;
  /** File offset of the superblock, a multiple of 4096. */
  readonly base: number;
  readonly directIo: boolean;
  /** Whether space can be reserved and given back: regular files. */
  readonly sparse: boolean;
  /** Whether the whole file is the image's, so that it ends where the image ends. */
  readonly ownsFile: boolean;
  /** Bytes from the base to the end of the device; null for regular files. */
  readonly capacity: number | null;
  /** Bytes of disk that the file has behind the base already, so that writing there takes no room. */
  readonly heldBytes: number;
  /** Bytes of disk that an earlier image takes beside the new one; 0 when writing in place. */
  readonly earlierBytes: number;
  /** Gives the earlier image up for good, so that its disk space is free. Nothing to do when writing in place. */
  giveUpEarlier(): void;
  /** Makes the sealed image the one at its name. Everything was flushed before. */
  publish(): Promise<void>;
  /** Gives up: removes what this run created, and leaves what was there before wherever that is possible. */
  discard(): Promise<void>;
}

export interface TargetRequest {
  /** Path or `fd:N`. */
  readonly image: string;
  readonly offset: number;
  readonly directIo: "auto" | "on" | "off";
  readonly onNote: (note: string) => void;
}
