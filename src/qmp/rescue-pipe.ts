import { closeSync, constants, openSync, symlinkSync, writeSync } from "node:fs";
import { makeFifo } from "../io/libc.ts";

/*
 * A monitor that QEMU obeys while its main loop hangs, whoever comes. Out-of-band commands are what QEMU runs then, but a
 * client may send them only after qmp_capabilities, which is the main loop's (qmp_dispatch, QEMU 7.2 and 10.0): a socket is
 * of use only to who was connected before. A monitor whose input is a FIFO has no connections, and remembers for all of
 * QEMU's life that it was told once. What it answers goes to /dev/null, for nobody reads it all the time.
 *
 * A user makes one for a VM of his own: mkfifo PATH.in; ln -s /dev/null PATH.out, and starts QEMU with
 * -chardev pipe,id=ID,path=PATH -mon chardev=ID,mode=control, where PATH is that of the -qmp socket.
 */

const ID = "multifd-rescue";

/** Makes what QEMU needs. @returns QEMU's arguments */
export function makeRescuePipe(path: string): readonly string[] {
  makeFifo(`${path}.in`);
  symlinkSync("/dev/null", `${path}.out`);
  return [
    "-chardev",
    `pipe,id=${ID},path=${path.replaceAll(",", ",,")}`,
    "-mon",
    `chardev=${ID},mode=control`,
  ];
}

/**
 * Tells a QEMU whose main loop works that out-of-band commands will come; said again, it changes nothing.
 * @returns false: there is no such monitor
 */
export function prepareRescue(path: string): boolean {
  return say(path, { execute: "qmp_capabilities", arguments: { enable: ["oob"] } });
}

/** Sends an out-of-band command. What QEMU answers nobody hears. @returns false: there is no such monitor */
export function commandRescue(path: string, command: string, args: object = {}): boolean {
  return say(path, { "exec-oob": command, arguments: args });
}

function say(path: string, message: object): boolean {
  let fd: number;
  try {
    // Not blocking: without a QEMU at the other end this fails.
    fd = openSync(`${path}.in`, constants.O_WRONLY | constants.O_NONBLOCK);
  } catch {
    return false;
  }
  try {
    writeSync(fd, `${JSON.stringify(message)}\n`);
    return true;
  } finally {
    closeSync(fd);
  }
}
