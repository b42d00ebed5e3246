import { type ErrorCode, MultifdError } from "../errors.ts";

const OF_THE_IMAGE: ReadonlySet<ErrorCode> = new Set([
  "NOT_AN_IMAGE",
  "UNSUPPORTED_VERSION",
  "NOT_SEALED",
  "IMAGE_DAMAGED",
  "IO",
]);

/** Runs what reads an image; whatever is wrong with the image says which one it is. */
export async function namingImage<T>(image: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof MultifdError) || !OF_THE_IMAGE.has(error.code) || error.message.includes(image)) {
      throw error;
    }
    throw new MultifdError(error.code, `${image}: ${error.message}`, { image, ...error.details }, error);
  }
}
