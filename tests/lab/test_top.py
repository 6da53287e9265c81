"""`balancerctl top` beside a real daemon: in a real terminal, tmux, and as text; judged by where a process was put."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.service import BIN, Balancerd
from tests.lab.workloads import Hog

pytestmark = [pytest.mark.topology("four-nodes"), pytest.mark.timeout(240)]

MIB = 64
OBSERVE = {"mode": "observe", "tick_interval": "1s", "select.min_age": "1s"}
PATIENCE_SECONDS = 120.0
"""Emulated, textual alone takes 10 s to read."""


class Tmux:
    """A terminal of 80 by 24 with one program in it, whose exit status is told below its last screen."""

    def __init__(self, folder: Path, *command: str) -> None:
        self._base = ["tmux", "-u", "-f", "/dev/null", "-S", str(folder / "tmux")]
        words = " ".join(f"'{word}'" for word in command)
        environment = {**os.environ, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
        subprocess.run(
            [*self._base, "new-session", "-d", "-x", "80", "-y", "24", f"{words}; echo ended $?; sleep 600"],
            check=True,
            env=environment,
        )

    def screen(self) -> str:
        """What is on the screen."""
        return subprocess.run(
            [*self._base, "capture-pane", "-p"], check=True, capture_output=True, text=True, encoding="utf-8"
        ).stdout

    def type(self, *keys: str) -> None:
        """Press keys, by the names that tmux(1) has for them."""
        subprocess.run([*self._base, "send-keys", *keys], check=True)

    def wait_for(self, condition: Callable[[str], bool], what: str) -> str:
        """Wait until the screen is as wanted; return it. AssertionError with what it is."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not condition(shown := self.screen()):
            assert time.monotonic() < end, f"no {what}: {shown}"
            time.sleep(0.5)
        return shown

    def close(self) -> None:
        """End whatever runs in it."""
        subprocess.run([*self._base, "kill-server"], check=False, stderr=subprocess.DEVNULL)


@pytest.fixture
def opened() -> Iterator[list[Tmux]]:
    terminals: list[Tmux] = []
    yield terminals
    for terminal in terminals:
        terminal.close()


def row_of(pid: int, screen: str) -> list[str]:
    """The words of a process's row; none when it is not shown."""
    rows = (line.split() for line in screen.splitlines())
    return next((words for words in rows if words[:1] == [str(pid)]), [])


@pytest.mark.thorough
def test_top_shows_where_memory_is_explains_why_and_survives_the_daemon(tmp_path: Path, opened: list[Tmux]) -> None:
    with Balancerd(tmp_path, overrides=OBSERVE) as daemon, Hog("base", MIB, touch_cpu=1, spin_cpu=0) as hog:
        terminal = Tmux(tmp_path, str(BIN / "balancerctl"), "--socket", str(daemon.socket), "top")
        opened.append(terminal)
        screen = terminal.wait_for(lambda shown: "0%" in row_of(hog.pid, shown), f"row of {hog.pid}")
        print(screen)
        words = row_of(hog.pid, screen)
        lies_on, runs_on, local = words[4:7]
        assert (lies_on[1], runs_on[0], local) == ("█", "█", "0%")  # a page or two may lie elsewhere
        assert "observe" in screen.splitlines()[0]
        assert [line.split()[:2] for line in screen.splitlines() if line.startswith("node ")] == [
            ["node", str(node)] for node in range(4)
        ]
        batch = daemon.balancerctl("top", "--batch", "-n", "1").stdout
        print(batch)
        words = row_of(hog.pid, batch)
        assert words[4].split(":")[0] == "1"
        assert "0%" in words
        terminal.type("/", *str(hog.pid), "Enter")
        terminal.wait_for(lambda shown: f"with '{hog.pid}'" in shown, "filter")
        terminal.type("Enter")
        terminal.wait_for(lambda shown: f"Process {hog.pid} " in shown, "explanation")
        terminal.type("Escape")
        daemon.stop()
        terminal.wait_for(lambda shown: "NO DAEMON" in shown, "word that the daemon is gone")
        terminal.type("q")
        terminal.wait_for(lambda shown: "ended 0" in shown, "end")
