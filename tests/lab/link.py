"""The host's side of guest/agent.py: one command over the machine's socket, its output as it comes, its exit status.

Owns the protocol, which agent.py describes.  Must not know how the machine was started.
"""

import base64
import contextlib
import json
import os
import selectors
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.state import LabError
from tests.lab.terminal import HANG_UP, Terminal

GRACE_SECONDS = 30.0  # beyond a command's own time-out, before the guest counts as dead

OnOutput = Callable[[int, bytes], None]


class MachineLostError(LabError):
    """The machine went away, or stopped answering, before the command ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A command that ended.  `exit_status` is 124 after a time-out, 127 if it could not start, 128 + N by signal N."""

    exit_status: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A way into a running machine, by the path of its agent's socket; every call is a connection of its own."""

    path: Path

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        cwd: Path,
        env: Mapping[str, str],
        timeout_seconds: float | None = None,
        answer_seconds: float | None = None,
        fresh: bool = False,
        on_output: OnOutput | None = None,
        terminal: Terminal | None = None,
    ) -> Completed:
        """Run `argv` inside and wait for it.

        `env` adds to the guest's own; `cwd` that is not there means /.  `fresh` first forgets what the guest cached of
        the host's files.  `on_output(stream, data)` gets stream 1 or 2 as it comes.  With `terminal` the command gets
        one of its own.  Raises MachineLostError, at the latest after `answer_seconds` (default: the time-out and 30 s).
        """
        if answer_seconds is None and timeout_seconds is not None:
            answer_seconds = timeout_seconds + GRACE_SECONDS
        identity = os.urandom(8).hex()
        request = {
            "id": identity,
            "argv": [os.fspath(argument) for argument in argv],
            "cwd": str(cwd),
            "env": dict(env),
            "timeout_seconds": timeout_seconds,
            "fresh": fresh,
            "terminal": terminal.size() if terminal else None,
        }
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as wire, selectors.DefaultSelector() as selector:
            try:
                wire.connect(str(self.path))
                _send(wire, request)
            except OSError as error:
                raise MachineLostError(f"no machine answers: {error}") from error
            selector.register(wire, selectors.EVENT_READ)
            if terminal:
                selector.register(terminal.input, selectors.EVENT_READ)
                terminal.on_resize(lambda size: _send(wire, {"id": identity, "resize": size}))
            return _converse(wire, selector, identity, answer_seconds, on_output, terminal)


def _converse(
    wire: socket.socket,
    selector: selectors.BaseSelector,
    identity: str,
    answer_seconds: float | None,
    on_output: OnOutput | None,
    terminal: Terminal | None,
) -> Completed:
    deadline = None if answer_seconds is None else time.monotonic() + answer_seconds
    outputs = {1: bytearray(), 2: bytearray()}
    received = b""
    while True:
        ready = {key.fileobj for key, _ in selector.select(None if deadline is None else deadline - time.monotonic())}
        if not ready and deadline is not None and time.monotonic() >= deadline:
            raise MachineLostError(f"the machine has not answered for {answer_seconds:.0f} s")
        if terminal and terminal.input in ready:
            typed = os.read(terminal.input, 4096)
            if HANG_UP in typed:
                raise KeyboardInterrupt
            _send(wire, {"id": identity, "input": base64.b64encode(typed).decode()})
        if wire not in ready:
            continue
        arrived = _receive(wire)
        if not arrived:
            raise MachineLostError("the machine went away")
        *lines, received = (received + arrived).split(b"\n")
        for message in map(json.loads, lines):
            if message["id"] != identity:
                continue  # left over from a client that hung up
            if "exit_status" in message:
                return Completed(exit_status=message["exit_status"], stdout=bytes(outputs[1]), stderr=bytes(outputs[2]))
            data = base64.b64decode(message["data"])
            outputs[message["stream"]] += data
            if on_output:
                on_output(message["stream"], data)


def _send(wire: socket.socket, message: Mapping[str, object]) -> None:
    wire.sendall(json.dumps(message).encode() + b"\n")


def _receive(wire: socket.socket) -> bytes:
    try:
        return wire.recv(65536)
    except ConnectionResetError:
        return b""
