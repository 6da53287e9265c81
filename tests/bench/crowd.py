"""crowd.c from Python: a machine full of processes to watch. Owns building, starting and ending them."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab.workloads import FLAGS


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How many processes, with how many threads in all; how many hold `mib`, and how many of these use CPUs."""

    processes: int
    threads: int
    large: int
    busy: int
    mib: int
    percent: int


def build(folder: Path, name: str = "crowd") -> Path:
    """Compile a program that stands here into `folder`; raises CalledProcessError, and the compiler has said why."""
    program = folder / name
    subprocess.run(["cc", *FLAGS, "-o", str(program), str(Path(__file__).with_name(f"{name}.c"))], check=True)
    return program


@contextmanager
def crowd(program: Path, shape: Shape) -> Iterator[tuple[int, ...]]:
    """Run a crowd in a process group of its own; gives the pids of the busy ones. All are gone behind the block."""
    numbers = (shape.processes, shape.threads, shape.large, shape.busy, shape.mib, shape.percent)
    process = subprocess.Popen(
        [str(program), *map(str, numbers)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    try:
        assert process.stdout is not None
        word, *pids = process.stdout.readline().split() or ["nothing"]
        if word != "ready":
            raise RuntimeError(f"the crowd said {word!r}")
        yield tuple(map(int, pids))
    finally:
        process.communicate()  # the end of its input is its end
