"""`balancerctl top` as a process of its own in a real (pseudo-)terminal, beside a real control socket."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.control.daemon import Room, running
from tests.unit.reports import a_moving_report

ROWS, COLUMNS = 24, 80
COLOUR = re.compile(r"\x1b\[[0-9;]*(?<![0-9])(3[0-7]|38|4[0-7]|48|9[0-7]|10[0-7])(?![0-9])[0-9;]*m")
"""Select Graphic Rendition with a colour, console_codes(4)."""


class Terminal:
    """A process in a terminal of 80 by 24."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self._main, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("4H", ROWS, COLUMNS, 0, 0))
        code = "from balancerd.cli.control import main; main()"
        variables = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=inside,
            stdout=inside,
            stderr=inside,
            start_new_session=True,
            env={**variables, "TERM": "xterm-256color", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", **environment},
        )
        os.close(inside)
        self.written = ""

    def wait_for(self, text: str, seconds: float = 60.0) -> None:
        """Read on until `text` was written since this was asked before."""
        seen, deadline = "", time.monotonic() + seconds
        while text not in _plain(seen):
            assert time.monotonic() < deadline, f"no {text!r} in {_plain(seen)[-3000:]!r}"
            if select.select([self._main], [], [], 0.1)[0]:
                try:
                    seen += os.read(self._main, 65536).decode("utf-8", "replace")
                except OSError as error:  # EIO: it has ended
                    raise AssertionError(f"ended without {text!r}: {_plain(seen)[-3000:]!r}") from error
        self.written += seen

    def type(self, keys: str) -> None:
        os.write(self._main, keys.encode())

    def end(self) -> int:
        """Read what is left, and return the exit status."""
        while True:
            try:
                if not os.read(self._main, 65536):
                    break
            except OSError:
                break
        return self.process.wait(30)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._main)


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?>=]*[ -/]*[@-~]", "", text)


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(socket=tmp_path / "control.sock")


@pytest.fixture
def opened() -> Iterator[list[Terminal]]:
    terminals: list[Terminal] = []
    yield terminals
    for terminal in terminals:
        terminal.close()


def test_it_follows_the_daemon_explains_says_when_it_is_gone_and_ends(room: Room, opened: list[Terminal]) -> None:
    terminal = Terminal("--socket", str(room.socket), "top")
    opened.append(terminal)
    terminal.wait_for("NO DAEMON")
    with running(room.server()):
        room.tell(a_moving_report(41))
        terminal.wait_for("tick 41")
        room.tell(a_moving_report(42))
        terminal.wait_for("42")
        terminal.type("\r")
        terminal.wait_for("Process 4242 (spin)")
        terminal.type("\x1b")
        terminal.wait_for("processes by remote memory")
        terminal.type("/spin/x\x7f\x7f\r")  # as fast as it is pasted
        terminal.wait_for("with 'spin'")
        room.stream.close()
    terminal.wait_for("NO DAEMON")
    assert COLOUR.search(terminal.written)
    terminal.type("q")
    assert terminal.end() == 0


def test_with_no_color_no_colour_reaches_the_terminal(room: Room, opened: list[Terminal]) -> None:
    with running(room.server()):
        room.tell(a_moving_report(1))
        terminal = Terminal("--socket", str(room.socket), "top", NO_COLOR="1")
        opened.append(terminal)
        terminal.wait_for("moving")
        terminal.type("w")
        terminal.wait_for("workloads by remote memory")
        terminal.type("\x03")
        assert terminal.end() == 0
        assert not COLOUR.search(terminal.written), COLOUR.search(terminal.written)
        room.stream.close()
