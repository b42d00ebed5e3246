import { tmpdir } from "node:os";
import { type Candidate, examinePlaces, noRoom, type RamDirectory } from "./ram-dir.ts";

/** Where an image can lie. A directory in memory (`inMemory`) proves nothing about a disk: O_DIRECT means nothing there. */
export type ImageDirectory = RamDirectory;

/** Room that something else will take soon, in memory or on a disk. */
export interface Reservation {
  readonly bytes: number;
  readonly inMemory: boolean;
}

/**
 * A directory with room for an image of `bytes`: on a disk if possible, else in memory. What is reserved in places of
 * the same kind must still fit. `directory` as given allows no other.
 * Rejects with NO_SPACE, naming every place tried and its room; with IO where the given one cannot be used at all.
 */
export async function pickImageDirectory(
  bytes: number,
  reserved: Reservation,
  directory?: string,
): Promise<ImageDirectory> {
  const places = directory === undefined ? [tmpdir(), "/var/tmp", process.cwd(), "/dev/shm"] : [directory];
  return chooseForImage(await examinePlaces([...new Set(places)]), bytes, reserved);
}

/** The choice itself: the first on a disk with room, else the first with room. */
export function chooseForImage(
  candidates: readonly Candidate[],
  bytes: number,
  reserved: Reservation,
): ImageDirectory {
  const fitting = candidates.filter(
    ({ unusable, room, inMemory }) =>
      unusable === undefined && room >= bytes + (inMemory === reserved.inMemory ? reserved.bytes : 0),
  );
  const chosen = fitting.find(({ inMemory }) => !inMemory) ?? fitting[0];
  if (chosen === undefined) throw noRoom(candidates, bytes, "of image");
  // Somebody who asked for one directory knows what it is.
  if (!chosen.inMemory || candidates.length === 1) return chosen;
  return { ...chosen, reason: `${chosen.reason}; no disk has room` };
}
