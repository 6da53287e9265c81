"""The guest's side of tests/lab/link.py: runs one command at a time for the host, over a virtio-serial port.

Started as PID 1 by init.sh, or as a systemd unit, with `python -S -E`: standard library only, and nothing of tests.lab.
Lines of JSON go both ways; every one but the first kind carries the id of the request it belongs to:

    host:  {"id", "argv", "cwd", "env", "timeout_seconds": N|null, "fresh": bool, "terminal": [rows, columns]|null}
           {"id", "input": base64}    {"id", "resize": [rows, columns]}
    guest: {"id", "stream": 1|2, "data": base64}    and last    {"id", "exit_status": N}

A host that hangs up, or sends another request, kills the command.
"""

import base64
import contextlib
import errno
import fcntl
import json
import os
import pty
import select
import selectors
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PORT_NAME = "lab.agent"
TIMED_OUT = 124  # as timeout(1) says it
NOT_FOUND = 127  # as a shell says it
LINGER_SECONDS = 0.3  # a background child may hold the output open: how long silence must last after the command ended
MOUNTS = (
    ("devpts", "/dev/pts", "gid=5,mode=620,ptmxmode=666"),
    ("tmpfs", "/dev/shm", "mode=1777"),
    ("cgroup2", "/sys/fs/cgroup", ""),
    ("tracefs", "/sys/kernel/tracing", ""),
    ("debugfs", "/sys/kernel/debug", ""),
    ("securityfs", "/sys/kernel/security", ""),
    ("hugetlbfs", "/dev/hugepages", ""),
)
CONTROLLERS = "+cpuset +cpu +memory +pids"

Message = dict[str, Any]


class HostGoneError(Exception):
    """Nobody holds the host's end of the port."""


class Port:
    """Lines of JSON over the virtio-serial device."""

    def __init__(self) -> None:
        self.descriptor = open_port()
        self.received = b""

    def send(self, **message: object) -> None:
        """Write one message whole; raises HostGoneError."""
        line = json.dumps(message).encode() + b"\n"
        poll = select.poll()
        poll.register(self.descriptor, select.POLLOUT)
        while line:
            if any(events & select.POLLHUP for _, events in poll.poll()):
                raise HostGoneError
            with contextlib.suppress(BlockingIOError):
                line = line[os.write(self.descriptor, line) :]

    def receive(self) -> Iterator[Message]:
        """The messages that have arrived whole; raises HostGoneError."""
        try:
            arrived = os.read(self.descriptor, 65536)
        except BlockingIOError:
            return
        if not arrived:
            self.received = b""
            raise HostGoneError
        *lines, self.received = (self.received + arrived).split(b"\n")
        for line in lines:
            yield json.loads(line)


class Command:
    """One running command: its process, and the descriptors that carry its output."""

    def __init__(self, request: Message) -> None:
        self.id: str = request["id"]
        size = request.get("terminal")
        self.controller: int | None = None
        cwd = Path(request["cwd"])
        options: dict[str, Any] = {"cwd": cwd if cwd.is_dir() else "/", "env": {**os.environ, **request["env"]}}
        if size is None:
            self.process = subprocess.Popen(
                request["argv"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                **options,
            )
            self.outputs = {stream.fileno(): number for number, stream in self._pipes()}
            return
        self.controller, terminal = pty.openpty()
        self.resize(size)
        try:
            self.process = subprocess.Popen(
                ["setsid", "--ctty", "--wait", *request["argv"]],
                stdin=terminal,
                stdout=terminal,
                stderr=terminal,
                start_new_session=True,
                **options,
            )
        finally:
            os.close(terminal)
        self.outputs = {self.controller: 1}

    def resize(self, size: list[int]) -> None:
        """Tell the terminal its rows and columns."""
        if self.controller is not None:
            fcntl.ioctl(self.controller, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))

    def write(self, data: bytes) -> None:
        """Type `data` into the terminal."""
        if self.controller is not None:
            os.write(self.controller, data)

    def kill(self) -> None:
        """End the command and the children that stayed in its process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> int:
        """Reap the process and free its descriptors; returns its exit status, 128 + N after signal N."""
        status = self.process.wait()
        for _, stream in self._pipes():
            stream.close()
        if self.controller is not None:
            os.close(self.controller)
        return status if status >= 0 else 128 - status

    def _pipes(self) -> list[tuple[int, Any]]:
        streams = ((1, self.process.stdout), (2, self.process.stderr))
        return [(number, stream) for number, stream in streams if stream is not None]


def serve(port: Port, request: Message) -> Message | None:
    """Run one request to its end; returns the request that displaced it, if one did."""
    if request["fresh"]:
        Path("/proc/sys/vm/drop_caches").write_text("2", encoding="ascii")
    try:
        command = Command(request)
    except OSError as error:
        text = f"lab: {error}\n".encode()
        port.send(id=request["id"], stream=2, data=base64.b64encode(text).decode())
        port.send(id=request["id"], exit_status=NOT_FOUND)
        return None
    displaced_by: Message | None = None
    timed_out = False
    try:
        timed_out, displaced_by = converse(port, command, request["timeout_seconds"])
    finally:
        if timed_out or displaced_by or command.process.poll() is None:
            command.kill()
        status = command.close()
    port.send(id=command.id, exit_status=TIMED_OUT if timed_out else status)
    return displaced_by


def converse(port: Port, command: Command, timeout_seconds: float | None) -> tuple[bool, Message | None]:
    """Carry output out and input in until the command ends; returns (timed out, the request that displaced it)."""
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    pidfd = os.pidfd_open(command.process.pid)
    with selectors.PollSelector() as selector:
        for descriptor in (port.descriptor, pidfd, *command.outputs):
            selector.register(descriptor, selectors.EVENT_READ)
        open_outputs = set(command.outputs)
        ended_at: float | None = None
        try:
            while open_outputs or ended_at is None:
                limits = [deadline, None if ended_at is None else ended_at + LINGER_SECONDS]
                remaining = [limit - time.monotonic() for limit in limits if limit is not None]
                ready = {key.fd for key, _ in selector.select(max(0.0, min(remaining)) if remaining else None)}
                for descriptor in ready & open_outputs:
                    data = read_output(descriptor)
                    if data:
                        text = base64.b64encode(data).decode()
                        port.send(id=command.id, stream=command.outputs[descriptor], data=text)
                        ended_at = ended_at and time.monotonic()
                    else:
                        selector.unregister(descriptor)
                        open_outputs.discard(descriptor)
                if port.descriptor in ready:
                    for message in port.receive():
                        if "argv" in message:
                            return False, message
                        obey(command, message)
                if pidfd in ready:
                    selector.unregister(pidfd)
                    ended_at = time.monotonic()
                if ended_at is None and deadline is not None and time.monotonic() >= deadline:
                    return True, None
                if ended_at is not None and not ready:
                    return False, None
        finally:
            os.close(pidfd)
    return False, None


def obey(command: Command, message: Message) -> None:
    """Do what a message to the running command says; those to an earlier one are stale."""
    if message["id"] != command.id:
        return
    if "input" in message:
        command.write(base64.b64decode(message["input"]))
    else:
        command.resize(message["resize"])


def read_output(descriptor: int) -> bytes:
    """Read what is there; empty at the end, which a terminal reports as EIO (see pty(7))."""
    try:
        return os.read(descriptor, 65536)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""


def open_port() -> int:
    """Wait for the port of our name and open it; sysfs shows it a moment before its device node exists."""
    while True:
        for name in Path("/sys/class/virtio-ports").glob("*/name"):
            with contextlib.suppress(OSError):
                if name.read_text(encoding="ascii").strip() == PORT_NAME:
                    return os.open(f"/dev/{name.parent.name}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        time.sleep(0.02)


def serve_forever() -> None:
    """Serve the host until the machine goes down."""
    port = Port()
    poll = select.poll()
    poll.register(port.descriptor, select.POLLIN)
    while True:
        poll.poll()
        try:
            requests = [message for message in port.receive() if "argv" in message]
            request = requests[-1] if requests else None
            while request is not None:
                request = serve(port, request)
        except HostGoneError:
            time.sleep(0.02)  # poll() returns at once while nobody is connected


def mount_all() -> None:
    """Mount what systemd would have mounted, and let cgroups below the root use the controllers."""
    for kind, where, options in MOUNTS:
        Path(where).mkdir(parents=True, exist_ok=True)
        flags = ["-o", options] if options else []
        subprocess.run(["mount", "-t", kind, *flags, kind, where], check=True)
    Path("/sys/fs/cgroup/cgroup.subtree_control").write_text(CONTROLLERS, encoding="ascii")


def main() -> None:
    """As PID 1, mount, then reap orphans while a child serves (and a new one if that dies); else just serve."""
    if os.getpid() != 1:
        serve_forever()
    mount_all()
    server = 0
    while True:
        if not server:
            server = os.fork()
            if not server:
                os.setsid()
                serve_forever()
        pid, status = os.wait()
        if pid == server:
            print(f"lab agent: ended with {status}, starting another", flush=True)
            server = 0


if __name__ == "__main__":
    main()
