import fs from "node:fs";
import path from "node:path";
import { MultifdError } from "../../errors.ts";
import { hasCode, ioError, padded } from "../file-io.ts";
import { inheritedFd, kindOfStat } from "./file-kind.ts";
import { openInherited, openInPlace } from "./in-place.ts";
import { noTarget } from "./no-target.ts";
import { openReplacement } from "./replacement.ts";
import type { Target, TargetRequest } from "./target.ts";

/**
 * Opens what an image is written to:
 * a path to a regular file is replaced at the end and not touched before; `fd:N`, block devices and
 * `--offset` are written in place. Everything else cannot hold an image and is refused.
 */
export async function openTarget(request: TargetRequest): Promise<Target> {
  const base = padded(request.offset);
  const inherited = inheritedFd(request.image);
  if (inherited !== null) return openInherited(inherited, base, request);
  const file = resolveLinks(request.image);
  const kind = kindOf(file);
  if (kind === "block" || request.offset > 0) return openInPlace(file, base, kind, request);
  return openReplacement(file, request);
}

/** A symlinked image replaces the target of the link and not the link; the last step may be missing. */
function resolveLinks(image: string): string {
  let file = path.resolve(image);
  for (let hops = 0; hops < 40; hops++) {
    let link: string;
    try {
      link = fs.readlinkSync(file);
    } catch (error) {
      if (hasCode(error, "EINVAL", "ENOENT")) return file;
      if (hasCode(error, "ELOOP")) break;
      throw noTarget(error, file) ?? ioError(error, `looking at ${image}`);
    }
    file = path.resolve(path.dirname(file), link);
  }
  throw new MultifdError("TARGET_REFUSED", `${image} is a loop of symbolic links: give another path`);
}

function kindOf(file: string): "missing" | "regular" | "block" {
  let stat: fs.Stats;
  try {
    stat = fs.lstatSync(file);
  } catch (error) {
    if (hasCode(error, "ENOENT")) return "missing";
    throw ioError(error, `looking at ${file}`);
  }
  return kindOfStat(stat, file);
}
