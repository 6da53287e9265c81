"""loads.c from Python: building, starting and ending it, and the conversation with it.

Owns the life of its processes. Must not know which memory belongs where.
"""

import os
import select
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.bench.locality.plan import BEGIN, DONE, THREE_QUARTERS, Mark
from tests.bench.victim import Gaps, parse_lap
from tests.lab.workloads import FLAGS, binary

SOURCES = Path(__file__).parent
ROUNDS = 64
"""Rounds of a unit. A round reads the 64 lines of a page, so a unit is 4,096 loads."""


def program() -> Path:
    """Where the built program is; the folder is shared with the guest."""
    return binary("loads")


def build() -> None:
    """Compile it if a source is newer. Raises CalledProcessError, and the compiler has said why."""
    target = program()
    sources = sorted(SOURCES.glob("*.c"))
    newest = max(path.stat().st_mtime for path in (*sources, *SOURCES.glob("*.h"), SOURCES.parent / "gaps.h"))
    if target.exists() and target.stat().st_mtime >= newest:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cc", *FLAGS, "-o", str(target), *map(str, sources)], check=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What loads.c is told besides the work: processes as it reads them, how they access memory, and its pages."""

    processes: Sequence[str]
    access: str = "scan"
    pages: str = "base"

    @property
    def n_threads(self) -> int:
        """How many threads work; a part that all read has none of its own."""
        parts = [part for process in self.processes for part in process.split("/")]
        return sum(not part.startswith("all=") for part in parts)


class Loads:
    """The processes of one loads.c, ready to work. Leaving the block ends them, however they fare."""

    def __init__(self, shape: Shape, work: int) -> None:
        command = [str(program()), str(work), str(ROUNDS), shape.access, shape.pages, *shape.processes]
        self._n_threads = shape.n_threads
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._units = work
        self._ends: list[int] = []
        self.gaps: Mapping[str, Gaps] = {}
        try:
            self.pids = tuple(map(int, self._expect("ready").split()))
            self._ends.extend(map(os.pidfd_open, self.pids))
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def work(self, mark: Mark) -> None:
        """Do all the work, and mark its beginning, when three quarters are done, and its end."""
        mark(BEGIN)
        self.say("go")
        self._expect("three-quarters")
        mark(THREE_QUARTERS)
        self._expect(f"done {self._units}")
        mark(DONE)
        self.say("gaps")
        self.gaps = dict(parse_lap(self._line()) for _ in range(self._n_threads))

    def finish(self) -> str:
        """Let all verify their memory and exit. Raises RuntimeError when a word of it is wrong."""
        self.say("end")
        told = self._line().strip()
        if self._process.wait() or not told.startswith("verified "):
            raise RuntimeError(f"the loads said {told!r}, and ended with {self._process.returncode}")
        return told

    def run_on(self, cpu: int) -> None:
        """Let all threads of all processes run on this CPU, as taskset -a does."""
        for pid in self.pids:
            for task in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), {cpu})

    def say(self, word: str) -> None:
        """Say a line to it; see loads.c."""
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def _expect(self, words: str) -> str:
        line = self._line()
        if not f"{line.strip()} ".startswith(f"{words} "):
            raise RuntimeError(f"the loads said {line!r} instead of {words!r}")
        return line.strip().removeprefix(words)

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def _end(self) -> None:
        self._process.kill()
        self._process.communicate()  # its output ends with the last of a storm
        for end in self._ends:
            select.select([end], [], [])
            os.close(end)
