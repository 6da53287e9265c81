"""DAMON's sysfs tree as files in a directory: writing does what the kernel of 6.12 does in mm/damon/sysfs.c."""

import errno
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from balancerd.kernel.heat.kdamonds import TREE, Region
from balancerd.model.ids import ProcessId
from tests.unit.kernel.trees import write_tree

FIRST_THREAD = 900


@dataclass(slots=True)
class Thread:
    """A running thread: whom it watches, and its CPU time."""

    pid: int
    target: int
    ticks: int = 0


class DamonTree:
    """The tree below `root`/sys, and processes below `root`/proc. `regions` is what every thread finds."""

    def __init__(self, root: Path, operations: str = "vaddr\npaddr\nfvaddr\n") -> None:
        self.sysfs, self.procfs = root / "sys", root / "proc"
        self.top = self.sysfs / TREE
        self.top.mkdir(parents=True)
        self.procfs.mkdir()
        (self.top / "nr_kdamonds").write_text("0\n")
        self.operations = operations
        self.threads: dict[int, Thread] = {}
        self.regions: Sequence[Region] = ()
        self.writes: list[tuple[str, str]] = []
        self.busy = 0

    def write(self, path: str, text: str) -> None:
        """Write as the kernel does. Raises OSError."""
        file = Path(path)
        if not file.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        if self.busy:
            self.busy -= 1
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)
        self.writes.append((str(file.relative_to(self.top)), text))
        if file.name == "nr_kdamonds":
            if self.threads:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)
            self._make(self.top, int(text), {"state": "off", "pid": "-1", "contexts/nr_contexts": "0"})
        elif file.name == "nr_contexts":
            names = ("sample_us", "aggr_us", "update_us")
            attributes = {f"monitoring_attrs/intervals/{name}": "1" for name in names}
            attributes |= {f"monitoring_attrs/nr_regions/{name}": "1" for name in ("min", "max")}
            more = {"avail_operations": self.operations, "operations": "vaddr"}
            counts = {"targets/nr_targets": "0", "schemes/nr_schemes": "0"}
            self._make(file.parent, int(text), {**more, **attributes, **counts})
        elif file.name == "nr_targets":
            self._make(file.parent, int(text), {"pid_target": "0"})
        elif file.name == "nr_schemes":
            bounds = [f"access_pattern/{what}/{end}" for what in ("sz", "nr_accesses", "age") for end in ("min", "max")]
            marks = [f"watermarks/{name}" for name in ("high", "mid", "low")]
            self._make(file.parent, int(text), {"action": "stat", **dict.fromkeys((*bounds, *marks), "0")})
        elif file.name == "state":
            self._command(file.parent, text)
            return
        file.write_text(f"{text}\n")

    def add_process(self, process: ProcessId, ticks: int = 0) -> None:
        """A process, or a thread of the kernel, that runs from now on."""
        fields = ["S", *["0"] * 10, str(ticks), *["0"] * 7, str(process.start_ticks), *["0"] * 30]
        write_tree(self.procfs, {f"{process.pid}/stat": f"{process.pid} (x) {' '.join(fields)}\n"})

    def end_process(self, process: ProcessId) -> None:
        """End it; the thread that watches it ends, too."""
        shutil.rmtree(self.procfs / str(process.pid))
        for slot, thread in tuple(self.threads.items()):
            if thread.target == process.pid:
                self._stop(slot)

    def run(self, slot: int, ticks: int) -> None:
        """Let a thread use CPU time."""
        thread = self.threads[slot]
        thread.ticks += ticks
        self.add_process(ProcessId(thread.pid, 1), thread.ticks)

    def _command(self, directory: Path, text: str) -> None:
        slot = int(directory.name)
        if text == "on":
            target = int((directory / "contexts/0/targets/0/pid_target").read_text())
            if slot in self.threads:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            if not (self.procfs / str(target)).exists():
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            self.threads[slot] = Thread(pid=FIRST_THREAD + slot, target=target)
            self.run(slot, 0)
            (directory / "state").write_text("on\n")
            (directory / "pid").write_text(f"{FIRST_THREAD + slot}\n")
        elif slot not in self.threads:
            raise OSError(errno.EPERM if text == "off" else errno.EINVAL, "not running")
        elif text == "off":
            self._stop(slot)
        else:
            assert text == "update_schemes_tried_regions"
            tried = directory / "contexts/0/schemes/0/tried_regions"
            shutil.rmtree(tried, ignore_errors=True)
            tried.mkdir()
            (tried / "total_bytes").write_text("0\n")
            for number, region in enumerate(self.regions):
                (tried / str(number)).mkdir()
                for name, value in (
                    ("start", region.start),
                    ("end", region.end),
                    ("nr_accesses", region.accesses),
                    ("age", region.age),
                ):
                    (tried / str(number) / name).write_text(f"{value}\n")

    def _stop(self, slot: int) -> None:
        del self.threads[slot]
        (self.top / f"{slot}/state").write_text("off\n")
        (self.top / f"{slot}/pid").write_text("-1\n")

    def _make(self, parent: Path, n: int, files: dict[str, str]) -> None:
        """Make so many numbered directories in place of all there are."""
        for old in parent.iterdir():
            if old.is_dir():
                shutil.rmtree(old)
        for number in range(n):
            for name, text in files.items():
                path = parent / str(number) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text + ("" if text.endswith("\n") else "\n"))
