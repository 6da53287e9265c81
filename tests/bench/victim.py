"""victim.c from Python: starting it, its gaps, where its memory and its threads are."""

import bisect
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

PAGE = 4096
THREADS = ("touch", "map")
"""The threads of victim.c by the names they give themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaps:
    """The gaps of one thread: how many ended below END nanoseconds, by END; the longest; the time in long ones."""

    longest_ns: int = 0
    in_long_ns: int = 0
    below: Counter[int] = field(default_factory=Counter)

    def __add__(self, other: "Gaps") -> "Gaps":
        return Gaps(
            longest_ns=max(self.longest_ns, other.longest_ns),
            in_long_ns=self.in_long_ns + other.in_long_ns,
            below=self.below + other.below,
        )

    @property
    def n(self) -> int:
        """How many gaps there were, which is the rounds of the loop."""
        return self.below.total()

    def percentile_ns(self, ratio: float) -> int:
        """Return a time that this share of the gaps did not exceed, up to 6 % too large; 0 when there were none."""
        ends = sorted(self.below)
        counts, total = [], 0
        for end in ends:
            total += self.below[end]
            counts.append(total)
        return min(ends[bisect.bisect_left(counts, ratio * total)], self.longest_ns) if ends else 0


def parse_lap(line: str) -> tuple[str, Gaps]:
    """Read one line of a lap: the thread's name and its gaps."""
    name, longest, in_long, *pairs = line.split()
    below = Counter({int(end): int(n) for end, _, n in (pair.partition(":") for pair in pairs)})
    return name, Gaps(longest_ns=int(longest), in_long_ns=int(in_long), below=below)


Lap = dict[str, Gaps]


def joined(laps: list[Lap]) -> Lap:
    """Return the gaps of several laps as those of one."""
    return {name: sum((lap[name] for lap in laps), Gaps()) for name in THREADS}


class Victim:
    """One process of victim.c. It is ready once started; leaving the block ends it, however it fares."""

    def __init__(self, program: Path, mib: int, *, first_cpu: int, cpu: int) -> None:
        command = [str(program), str(mib), str(first_cpu), str(cpu)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        word, *_, start, end = self._line().split()
        if word != "ready":
            raise RuntimeError(f"{' '.join(command)} said {word!r}")
        self.start, self.end = int(start, 16), int(end, 16)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def pages(self) -> int:
        return (self.end - self.start) // PAGE

    def lap(self) -> Lap:
        """Return the gaps since the last lap. Waits for those at hand to end, and counts them."""
        self._say("lap")
        return dict(parse_lap(self._line()) for _ in THREADS)

    def finish(self) -> None:
        """Let it check every word of its memory; raises RuntimeError when one is wrong."""
        self._say("end")
        told = self._line()
        if self._process.wait() or told != f"verified {self.pages} pages\n":
            raise RuntimeError(f"the victim said: {told}")

    def pages_by_node(self) -> Counter[int]:
        """Return where its memory is, as numa_maps tells. Reading it holds the process up."""
        text = Path(f"/proc/{self.pid}/numa_maps").read_text(encoding="ascii")
        (line,) = (line for line in text.splitlines() if int(line.split()[0], 16) == self.start)
        words = (word.partition("=") for word in line.split())
        return Counter({int(key[1:]): int(n) for key, _, n in words if key[0] == "N" and key[1:].isdigit()})

    def cpus_allowed(self) -> tuple[str, ...]:
        """Return on which CPUs each of its threads may run, in the order of their ids."""
        tasks = sorted(Path(f"/proc/{self.pid}/task").iterdir(), key=lambda task: int(task.name))
        lines = (line for task in tasks for line in (task / "status").read_text(encoding="utf-8").splitlines())
        return tuple(line.split()[1] for line in lines if line.startswith("Cpus_allowed_list:"))

    def _say(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def build(folder: Path) -> Path:
    """Compile victim.c into `folder`; raises CalledProcessError, and the compiler has said why."""
    program = folder / "victim"
    flags = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread")
    source = Path(__file__).with_suffix(".c")
    subprocess.run(["cc", *flags, "-o", str(program), str(source)], check=True)
    return program


@contextmanager
def beat(program: Path, cpu: int, microseconds: int) -> Iterator[None]:
    """Let a timer expire so often on `cpu`."""
    with subprocess.Popen([str(program), "beat", str(cpu), str(microseconds)]) as process:
        try:
            yield
        finally:
            process.kill()
