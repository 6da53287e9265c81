"""Processes to balance: small C programs, built on the host, run inside. Owns building, starting and ending them."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.state import lab_directory

SOURCES = Path(__file__).parent
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread")
READY_SECONDS = 120.0


def binary(name: str) -> Path:
    """Where the built program is; the folder is shared with the guest."""
    return lab_directory().root / "bin" / name


def build() -> None:
    """Compile what is newer than its program. Raises CalledProcessError; the compiler has said why."""
    for source in SOURCES.glob("*.c"):
        program = binary(source.stem)
        program.parent.mkdir(parents=True, exist_ok=True)
        newest = max(path.stat().st_mtime for path in (source, *SOURCES.glob("*.h")))
        if not program.exists() or program.stat().st_mtime < newest:
            subprocess.run(["gcc", *FLAGS, "-o", str(program), str(source)], check=True)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a workload ended: its status, and what it said after "ready"."""

    status: int
    told: str


class Program:
    """One process of a program that says "ready", and what it likes to add, once it is; leaving the block ends it."""

    def __init__(self, command: Sequence[str | Path]) -> None:
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        word, _, self.added = self.process.stdout.readline().rstrip("\n").partition(" ")
        if word != "ready":
            self.process.kill()
            said = f"{word} {self.added}".strip()
            raise RuntimeError(f"{' '.join(map(str, command))} said {said!r} and ended with {self.process.wait()}")

    @property
    def pid(self) -> int:
        """The pid that the program was started with; a prefix such as numactl execs into it."""
        return self.process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


class Verifier(Program):
    """A program that checks every word of its memory when it is asked to end."""

    def end(self) -> Ended:
        """Ask it to check its memory and exit."""
        os.kill(self.pid, signal.SIGTERM)
        told, _ = self.process.communicate(timeout=READY_SECONDS)
        return Ended(status=self.process.returncode, told=told.strip())


class Hog(Verifier):
    """One `hog` process; see hog.c."""

    def __init__(
        self,
        kind: str,
        mib: int,
        *,
        touch_cpu: int,
        spin_cpu: int,
        busy_percent: int = 95,
        path: Path | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        where = [] if path is None else [str(path)]
        words = [kind, str(mib), str(touch_cpu), str(spin_cpu), str(busy_percent)]
        super().__init__([*prefix, binary("hog"), *words, *where])
        self.ready_at = time.monotonic()

    def check(self) -> Ended:
        """Have it check its memory and go on; a status of 0 is told while it does."""
        assert self.process.stdout is not None
        os.kill(self.pid, signal.SIGUSR1)
        told = self.process.stdout.readline().strip()
        return Ended(status=0 if told.startswith("verified") else self.process.wait(READY_SECONDS), told=told)


def mib_by_node(pid: int) -> dict[int, float]:
    """Return a process's memory by node in MiB, as numastat(8) tells; nodes with none are left out."""
    text = subprocess.run(["numastat", "-p", str(pid)], check=True, capture_output=True, text=True).stdout
    lines = text.splitlines()
    header = next(line for line in lines if "Node 0" in line)
    nodes = [int(word) for word in header.split() if word.isdigit()]
    total = next(line for line in lines if line.startswith("Total"))
    return {node: mib for node, mib in zip(nodes, map(float, total.split()[1:]), strict=False) if mib > 0}


def share(pid: int, *nodes: int) -> float:
    """Return the share of a process's memory that some nodes hold."""
    held = mib_by_node(pid)
    return sum(held.get(node, 0.0) for node in nodes) / sum(held.values())


def vmstat(name: str) -> int:
    """Return one counter of /proc/vmstat."""
    for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    raise KeyError(name)
