"""Programs that start at once: one process has read all of balancerd, and each daemon or command is a fork of it.

Emulated, reading the daemon's modules takes 10 s, and most of what a test waits for. What is forked has done nothing
yet; from there on it is the same program, with a pid, output and exit status of its own. Its command line is another.

    python -m tests.lab.prestart FD    the process to fork from, which is told what to start over a socket
"""

import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_MESSAGE_BYTES = 1 << 16
END_SECONDS = 30.0

PROGRAMS = ("balancerd", "balancerctl")


class Child:
    """A program that was started, with what tests use of subprocess.Popen."""

    def __init__(self, owner: "Prestart", pid: int) -> None:
        self.pid = pid
        self._owner = owner

    @property
    def returncode(self) -> int | None:
        """The exit status, or the signal that has ended it, negated; None while nobody has asked since it ended."""
        return self._owner.ended.get(self.pid)

    def poll(self) -> int | None:
        """Ask whether it has ended; return `returncode`."""
        self._owner.listen(0.0)
        return self.returncode

    def wait(self, timeout: float = 60.0) -> int:
        """Return the exit status once there is one. Raises subprocess.TimeoutExpired."""
        end = time.monotonic() + timeout
        while (status := self.returncode) is None:
            if time.monotonic() >= end:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            self._owner.listen(max(0.0, end - time.monotonic()))
        return status

    def send_signal(self, number: int) -> None:
        """Signal it, unless it is known to have ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class Prestart:
    """The process to fork from, from here. `ended` are the exit statuses of programs by pid."""

    def __init__(self) -> None:
        self.ended: dict[int, int] = {}
        self._channel, self._far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._server: subprocess.Popen[bytes] | None = None

    def start(self, command: Sequence[str], *, stdout: int, stderr: int) -> Child:
        """Start one of PROGRAMS with its arguments; what it writes goes to these descriptors."""
        if command[0] not in PROGRAMS:
            raise ValueError(f"{command[0]} is none of {', '.join(PROGRAMS)}")
        if self._server is None:
            self._server = self._serve()
        socket.send_fds(self._channel, [json.dumps(list(command)).encode()], [stdout, stderr])
        while True:
            started = self._receive()
            if started is not None:
                self.ended.pop(started, None)  # an earlier one had the same pid
                return Child(self, started)

    def listen(self, seconds: float) -> None:
        """Learn who has ended; wait at most so long for somebody to end."""
        while select.select([self._channel], [], [], seconds)[0]:
            self._receive()
            seconds = 0.0

    def close(self) -> None:
        """End the process to fork from; daemons that run go on."""
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)  # a child that a test has forked may hold the channel open
        self._channel.close()
        self._far.close()
        if self._server is None:
            return
        try:
            self._server.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            print("the process to fork from does not end by itself", flush=True)
            self._server.kill()
            self._server.wait()

    def _serve(self) -> subprocess.Popen[bytes]:
        """Start the process, which then reads everything; it is needed where daemons are only."""
        with self._far as far:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.lab.prestart", str(far.fileno())],
                pass_fds=[far.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )

    def _receive(self) -> int | None:
        """Receive one message: return the pid that was started, or None when it tells of an end."""
        message = self._channel.recv(_MESSAGE_BYTES)
        if not message:
            raise RuntimeError("the process to fork from has ended")
        told: dict[str, int] = json.loads(message)
        if "status" in told:
            self.ended[told["pid"]] = told["status"]
            return None
        return told["pid"]


def serve(channel: socket.socket) -> list[str] | None:
    """Start what the channel asks for and tell of its end, until the other side closes it: None.

    Returns a second time in each process that was started: with its command, its output in place.
    """
    children: dict[int, int] = {}  # pid by pidfd
    while True:
        for fd in select.select([channel.fileno(), *children], [], [])[0]:
            if fd in children:
                pid = children.pop(fd)
                os.close(fd)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                channel.send(json.dumps({"pid": pid, "status": status}).encode())
                continue
            message, descriptors, _, _ = socket.recv_fds(channel, _MESSAGE_BYTES, 2)
            if not message:
                return None
            pid = os.fork()
            if pid == 0:
                for number, each in enumerate(descriptors, 1):
                    os.dup2(each, number)
                for each in (*descriptors, *children):
                    os.close(each)
                channel.close()
                command: list[str] = json.loads(message)
                Path("/proc/self/comm").write_text(command[0], encoding="ascii")
                return command
            for each in descriptors:
                os.close(each)
            children[os.pidfd_open(pid)] = pid
            channel.send(json.dumps({"pid": pid}).encode())


def main() -> int:
    # what this process is for, and nobody else should read
    from balancerd import cli
    from balancerd.cli.control import main as balancerctl
    from balancerd.cli.daemon import main as balancerd

    for module in pkgutil.iter_modules(cli.__path__, "balancerd.cli."):
        importlib.import_module(module.name)
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        command = serve(channel)
    if command is None:
        return 0
    sys.argv = command
    if command[0] == "balancerctl":
        balancerctl()
    return balancerd(command[1:])


if __name__ == "__main__":
    sys.exit(main())
