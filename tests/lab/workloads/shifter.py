"""Starting, watching and ending `shifter` processes; see shifter.c, whose counters are read here."""

import mmap
import struct
import time
from pathlib import Path
from types import TracebackType

from balancerd.kernel.processes.identity import read_start_ticks
from balancerd.model.ids import ProcessId
from tests.lab.workloads import Program, binary

BASE = 0x100000000000
MIB = 1 << 20
COUNTERS = ("phase", "pid", "begun", "done", "succeeded", "wrong", "resting", "tags")
RUN, REST, FINISH = range(3)
PATIENCE_SECONDS = 30.0


class Counters:
    """The counters that a shifter keeps in a file, read while it runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(bytes(8 * len(COUNTERS)))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)

    def __getitem__(self, name: str) -> int:
        return int(struct.unpack_from("=Q", self._memory, 8 * COUNTERS.index(name))[0])

    def order(self, phase: int) -> None:
        """Tell the process what to do from now on."""
        struct.pack_into("=Q", self._memory, 8 * COUNTERS.index("phase"), phase)

    def close(self) -> None:
        self._memory.close()


class _Counted(Program):
    """One started shifter."""

    def __init__(self, counters: Counters, arguments: list[str]) -> None:
        self.counters = counters
        super().__init__([binary("shifter"), *arguments])

    def acts(self) -> tuple[int, int]:
        """How many disturbances have begun, and how many are done."""
        return self.counters["begun"], self.counters["done"]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self.counters.close()


class Shifter(_Counted):
    """A process whose memory, MIB at BASE, changes while it is moved."""

    def __init__(self, act: str, mib: int, folder: Path, *, cpu: int, seed: int) -> None:
        self.start, self.end = BASE, BASE + mib * MIB
        counters = Counters(folder / f"{act}.counters")
        super().__init__(counters, [act, str(mib), str(cpu), str(seed), str(counters.path)])

    def process_id(self) -> ProcessId:
        """The present owner of the memory. Raises ProcessGoneError between two of them."""
        pid = self.counters["pid"]
        return ProcessId(pid, read_start_ticks(pid))

    def rest(self) -> None:
        """Have it change nothing any more."""
        self.counters.order(REST)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.counters["resting"]:
            assert self.process.poll() is None, f"shifter ended with {self.process.returncode}"
            assert time.monotonic() < deadline, "shifter does not come to rest"
            time.sleep(0.01)

    def finish(self) -> str:
        """Have it check every word; returns what it says."""
        self.counters.order(FINISH)
        told, _ = self.process.communicate(timeout=PATIENCE_SECONDS)
        return f"{told.strip()}, status {self.process.returncode}, {self.counters['wrong']} pages were wrong"


class Writer(_Counted):
    """A process that writes two words into control files by turns."""

    def __init__(self, folder: Path, words: tuple[str, str], files: list[Path], *, nap_ms: int) -> None:
        counters = Counters(folder / f"{files[0].name}.counters")
        super().__init__(counters, ["write", str(nap_ms), str(counters.path), *words, *map(str, files)])

    def finish(self) -> int:
        """Have it end with the other word everywhere; returns how often the first one was taken."""
        self.counters.order(REST)
        status = self.process.wait(PATIENCE_SECONDS)
        assert status == 0, f"a control file refused the word that undoes the first one: status {status}"
        return self.counters["succeeded"]
