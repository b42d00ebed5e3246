import fs from "node:fs";
import path from "node:path";
import { MultifdError } from "../../errors.ts";
import { hasCode } from "../file-io.ts";

/** TARGET_REFUSED where a system call says that no file can stand at this name; null for every other error. */
export function noTarget(error: unknown, file: string): MultifdError | null {
  const refused = (text: string): MultifdError =>
    new MultifdError("TARGET_REFUSED", text, { path: file }, error);
  const directory = path.dirname(file);
  if (hasCode(error, "ENOENT")) {
    return fs.existsSync(directory)
      ? refused(`no file can be created in ${directory}: choose another directory`)
      : refused(`the directory ${directory} does not exist: create it first`);
  }
  if (hasCode(error, "ENOTDIR")) return refused(`${directory} is no directory: choose another path`);
  if (hasCode(error, "ENAMETOOLONG")) {
    return refused(`the file name ${path.basename(file)} is too long: use a shorter one`);
  }
  return null;
}
