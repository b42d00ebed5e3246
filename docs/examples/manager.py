#!/usr/bin/env python3
"""Saves and restores a VM with multifd-helper: a small manager that needs nothing but Python 3.8.

    manager.py save QMP-SOCKET IMAGE [--channels N]      the VM is left paused, to be ended or continued
    manager.py restore QMP-SOCKET IMAGE                  into a QEMU that was started with -incoming defer -S

It follows docs/manager-contract.md: the listening socket is the manager's and is inherited by the helper; an image is
kept only when QEMU has said "completed" and the helper has exited with 0.
"""
import argparse
import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import time


class Qmp:
    """QEMU's monitor. Every command is answered before the next one; events are left out."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.lines = self.socket.makefile("r", encoding="utf-8")
        self.lines.readline()  # the greeting
        self.execute("qmp_capabilities")

    def execute(self, command, **arguments):
        # QMP's names have hyphens where Python's have underscores.
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        self.socket.sendall(json.dumps({"execute": command, "arguments": named}).encode())
        for line in self.lines:
            answer = json.loads(line)
            if "error" in answer:
                raise RuntimeError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        raise RuntimeError(f"QEMU ended during {command}")

    def set_up(self, channels, compression="none", outgoing=False):
        capabilities = {"multifd": channels > 0, **({"return-path": False} if outgoing else {})}
        states = [{"capability": name, "state": state} for name, state in capabilities.items()]
        self.execute("migrate-set-capabilities", capabilities=states)
        multifd = {"multifd_channels": channels, "multifd_compression": compression} if channels else {}
        self.execute("migrate-set-parameters", max_bandwidth=0, **multifd)

    def wait_migration(self, give_up):
        """How the migration ended. `give_up` is called until it says that there is nothing to wait for."""
        while True:
            info = self.execute("query-migrate")
            if info.get("status") in ("completed", "failed", "cancelled"):
                return info["status"]
            if give_up():
                return "given up"
            time.sleep(0.05)


def save(helper_command, qmp, image, channels):
    qmp.execute("stop")
    qmp.set_up(channels, outgoing=True)
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listener:
        path = os.path.join(directory, "save.sock")  # mode 0700: nobody else gets here
        listener.bind(path)
        listener.listen(1 + channels)
        fd = listener.fileno()
        arguments = ["save", image, "--listen", f"fd:{fd}", "--channels", str(channels), "--hold", "--json"]
        helper = subprocess.Popen(helper_command + arguments, pass_fds=[fd], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, text=True)
        # The socket listens already, so that QEMU need not wait for the helper.
        qmp.execute("migrate", uri=f"unix:{path}")
        status = qmp.wait_migration(give_up=lambda: helper.poll() is not None)
        # communicate() answers, closes stdin, reads the events and waits.
        events, _ = helper.communicate("commit\n" if status == "completed" else "abort\n")
    if status == "given up":
        qmp.execute("migrate_cancel")
    report(helper, events, status)


def restore(helper_command, qmp, image):
    inspected = subprocess.run(helper_command + ["inspect", image, "--json"], stdout=subprocess.PIPE, text=True)
    answer = json.loads(inspected.stdout)
    if not answer.get("destination"):
        sys.exit(f"{image} cannot be restored: {answer.get('message', 'it is not sealed')}")
    needs = answer["destination"]
    qmp.set_up(needs["multifdChannels"], needs["multifdCompression"])
    with tempfile.TemporaryDirectory() as directory:
        uri = f"unix:{directory}/restore.sock"
        qmp.execute("migrate-incoming", uri=uri)
        arguments = ["restore", image, "--connect", uri, "--json"]
        helper = subprocess.run(helper_command + arguments, stdout=subprocess.PIPE, text=True)
        # Delivered is not yet accepted: QEMU has the last word, and gets ten seconds for it.
        deadline = time.monotonic() + 10
        failed = helper.returncode != 0
        status = "not asked" if failed else qmp.wait_migration(lambda: time.monotonic() > deadline)
    report(helper, helper.stdout, status)


def report(helper, events, status):
    """Success is QEMU's "completed" and the helper's 0, and nothing less."""
    last = json.loads(events.splitlines()[-1]) if events else {}
    if helper.returncode == 0 and status == "completed":
        print(f"{last['bytes']} bytes in {last['elapsedMs']} ms: {last['image']['path']}")
        return
    code, message = last.get("code", "no event"), last.get("message", "it ended without a word")
    sys.exit(f"QEMU: {status}; helper: exit status {helper.returncode}, {code}: {message}")


def main():
    parser = argparse.ArgumentParser(description="Saves and restores a VM with multifd-helper.")
    parser.add_argument("--helper", default="multifd-helper", help="command line that starts the helper")
    parser.add_argument("--channels", type=int, default=4, help="multifd channels of a save (default: 4)")
    parser.add_argument("command", choices=["save", "restore"])
    parser.add_argument("qmp", help="path of QEMU's QMP socket")
    parser.add_argument("image")
    options = parser.parse_args()
    qmp = Qmp(options.qmp)
    if options.command == "save":
        save(shlex.split(options.helper), qmp, options.image, options.channels)
    else:
        restore(shlex.split(options.helper), qmp, options.image)


if __name__ == "__main__":
    main()
