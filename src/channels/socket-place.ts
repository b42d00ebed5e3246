import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { MultifdError } from "../errors.ts";
import { parseAddress } from "./address.ts";
import { admittedUsers, ourUid, type Warnings } from "./doorkeeper.ts";

const WRITABLE_BY_OTHERS = 0o022;
const STICKY = 0o1000;
const PASSABLE = 0o711;
const FOR_EVERYONE = 0o666;
const OTHERS_MAY_PASS = 0o001;
const ROOT = 0;

const PRIVATE_PREFIX = ".multifd-";
const SOCKET_NAME = "s";
/** What a link of ours points to: the prefix, what mkdtemp adds, and the socket. */
const OUR_LINK = /^(.*\/)?\.multifd-[A-Za-z0-9]{6}\/s$/s;

/** Where the socket for `unix:PATH` is bound, and what is made around it. */
export interface SocketPlace {
  /** Where to bind: PATH itself, or a name in a private directory. */
  readonly socket: string;
  /** Lets the allowed users in and, for a private directory, makes PATH lead there. For the bound socket. */
  open(): void;
  /** Removes what was made here except the socket, which goes with its server. */
  remove(): void;
}

/**
 * PATH itself where nobody else can write to its directory. Elsewhere another user could put a socket of their own in
 * our place and get the guest's memory. There the socket goes into a new directory of ours, and PATH becomes a
 * symbolic link to it, so that QEMU may be given either: beside PATH where the directory is sticky, so that nobody
 * can take our directory away; else among the temporary files.
 * @throws MultifdError LISTEN_FAILED where neither is safe, USAGE where the path gets too long; errors of node:fs
 */
export function placeSocket(file: string, allowUids: readonly number[], log: Warnings): SocketPlace {
  const admitted = admittedUsers(allowUids);
  const guests = [...new Set(allowUids)].filter((uid) => uid !== ROOT && uid !== ourUid());
  const directory = path.dirname(file);
  const { mode, uid } = fs.statSync(directory);
  if (admitted.has(uid) && (mode & WRITABLE_BY_OTHERS) === 0) {
    return {
      socket: file,
      open() {
        letIn(file, guests);
        warnOfClosedDirectory(directory, guests, log);
      },
      remove() {},
    };
  }
  return privatePlace(file, safeHome(directory, admitted, log), guests);
}

/**
 * Removes a link at PATH, and what it leads to, that a killed helper of this user left behind.
 * @returns whether PATH was such a link
 */
export function removeLeftLink(file: string): boolean {
  const link = fs.lstatSync(file, { throwIfNoEntry: false });
  // A link of another user may lead to anything of ours: it is left alone.
  if (!link?.isSymbolicLink() || link.uid !== ourUid()) return false;
  const target = fs.readlinkSync(file);
  if (!OUR_LINK.test(target)) return false;
  const socket = path.resolve(path.dirname(file), target);
  fs.rmSync(socket, { force: true });
  removeEmpty(path.dirname(socket));
  fs.unlinkSync(file);
  return true;
}

function privatePlace(file: string, home: string, guests: readonly number[]): SocketPlace {
  const directory = fs.mkdtempSync(path.join(home, PRIVATE_PREFIX));
  const socket = path.join(directory, SOCKET_NAME);
  // Relative where both are neighbours: it holds for a QEMU that sees the directory under another name, too.
  const target = home === path.dirname(file) ? path.join(path.basename(directory), SOCKET_NAME) : socket;
  try {
    parseAddress(`unix:${socket}`);
    if (guests.length > 0) fs.chmodSync(directory, PASSABLE);
  } catch (error) {
    fs.rmdirSync(directory);
    throw error;
  }
  return {
    socket,
    open() {
      letIn(socket, guests);
      fs.symlinkSync(target, file);
    },
    remove() {
      removeEmpty(directory);
      if (leadsTo(file, target)) fs.unlinkSync(file);
    },
  };
}

/** A directory whose names only admitted users can take away. */
function safeHome(directory: string, admitted: ReadonlySet<number>, log: Warnings): string {
  if (keepsNames(directory, admitted)) return directory;
  const temporary = os.tmpdir();
  if (!keepsNames(temporary, admitted)) {
    const text = `others can replace whatever stands in ${directory}, and in ${temporary} as well: choose a directory that only you can write to`;
    throw new MultifdError("LISTEN_FAILED", text, { path: directory });
  }
  log.warn(
    { directory },
    `others can replace whatever stands in ${directory}: give QEMU the address of the event listening, or choose a directory that only you can write to`,
  );
  return temporary;
}

function keepsNames(directory: string, admitted: ReadonlySet<number>): boolean {
  const { mode, uid } = fs.statSync(directory);
  return admitted.has(uid) && ((mode & WRITABLE_BY_OTHERS) === 0 || (mode & STICKY) !== 0);
}

/** One user gets the socket; several, or one that we may not give it to, share it and are told apart as they connect. */
function letIn(socket: string, guests: readonly number[]): void {
  const [guest] = guests;
  if (guest === undefined) return;
  if (guests.length === 1 && ourUid() === ROOT) fs.lchownSync(socket, guest, -1);
  else fs.chmodSync(socket, FOR_EVERYONE);
}

/** The manager's directory is the manager's: it is not opened, but a QEMU that cannot pass it is worth a word. */
function warnOfClosedDirectory(directory: string, guests: readonly number[], log: Warnings): void {
  const { mode, uid } = fs.statSync(directory);
  const shut = guests.filter((guest) => guest !== uid && (mode & OTHERS_MAY_PASS) === 0);
  if (shut.length === 0) return;
  log.warn(
    { directory, uids: shut.join(",") },
    `uid ${shut.join(", ")} may not be able to reach the socket: ${directory} does not let everybody pass`,
  );
}

function removeEmpty(directory: string): void {
  try {
    fs.rmdirSync(directory);
  } catch {
    // Gone, or somebody keeps something in it: nothing of ours is lost.
  }
}

function leadsTo(file: string, target: string): boolean {
  try {
    return fs.readlinkSync(file) === target;
  } catch {
    return false;
  }
}
