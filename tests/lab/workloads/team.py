"""A process with a part of its memory for each thread; see team.c. Owns starting it, and where its parts lie."""

import signal
import subprocess
from types import TracebackType
from typing import Self

from balancerd.native import PAGE_BYTES, RangeArray, placement
from tests.lab.workloads import READY_SECONDS, Ended, binary

MIB = 1 << 20


class Team:
    """Thread I runs on CPU I. It is ready once started; leaving the block ends it, however it fares."""

    def __init__(self, kind: str, part_mib: int, *, threads: int = 4, busy_percent: int = 50) -> None:
        command = [str(binary("team")), kind, str(part_mib), str(threads), str(busy_percent)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        word, _, address = self.process.stdout.readline().strip().partition(" ")
        if word != "ready":
            self.process.kill()
            raise RuntimeError(f"{' '.join(command)} ended with {self.process.wait()}")
        first = int(address, 16)
        self._parts = [
            (first + index * part_mib * MIB, first + (index + 1) * part_mib * MIB, PAGE_BYTES)
            for index in range(threads)
        ]

    @property
    def pid(self) -> int:
        """Its pid."""
        return self.process.pid

    def at_home(self) -> tuple[float, ...]:
        """The share of each part that lies on the node of its thread, by asking for every page."""
        found = placement(self.pid, RangeArray(self._parts), n_nodes=len(self._parts))
        return tuple(row.on_node[index] / sum(row.on_node) for index, row in enumerate(found.per_range))

    def end(self) -> Ended:
        """Ask it to check its memory and exit."""
        self.process.send_signal(signal.SIGTERM)
        told, _ = self.process.communicate(timeout=READY_SECONDS)
        return Ended(status=self.process.returncode, told=told.strip())

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
