"""Who balances while a workload runs: nobody, the kernel, numad, balancerd, or a binding right from the start.

Owns starting them, on the CPUs that this process may use, and what they tell of themselves afterwards. Inside the
guest, as root. Must not know the workload, nor who should win.

balancerd runs with its default configuration but for what an emulated machine needs (EMULATED) and for the log's level:
at "debug" the log tells of decisions and moves. Its default `yield_to` does not name kernel-balancing: with
kernel.numa_balancing=1 it goes on, beside the kernel.

numad gets every chance: an interval of 5 s in place of 15, and a clock past its first 300 s, in which it does nothing.
It is told to keep off the CPU that the harness uses, since it widens the affinity of what it moves to whole nodes.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from balancerd.control.client import ControlFailure
from tests.bench import watchers
from tests.bench.locality import logs
from tests.lab.service import EMULATED, Balancerd

BALANCING = Path("/proc/sys/kernel/numa_balancing")
NUMAD_LOG = Path("/var/log/numad.log")
NUMAD_LEVEL = 7
KEPT_LINES = 40
"""So many lines of a log are kept in the result, the last ones."""

ACCOUNTS = ("ticks", "failed_ticks", "moved_bytes", "submitted_pages", "pages")
FACTS = ("comm", "reason", "detail", "bytes_by_node", "run_ratio", "cpu_cores", "threads", "verdicts")


class Daemon(Protocol):
    """A program that moves memory about. `tell` says what it did, and of these processes what it thinks."""

    @property
    def pid(self) -> int: ...

    def tell(self, pids: Iterable[int]) -> dict[str, Any]: ...


Start = Callable[[Path, int], AbstractContextManager[Daemon]]
"""Starts a daemon with a folder for its files and the CPU that is not the workload's; it is ready, or raises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """One way to have memory where it is used.

    is_bound: the workload places itself well from the start (Plan.is_bound), and nobody needs to move anything
    is_kernel_on: kernel.numa_balancing=1
    """

    name: str
    summary: str
    is_bound: bool = False
    is_kernel_on: bool = False
    start: Start | None = None


class Numad:
    """Debian's numad at work; `text()` is what it has logged since it was started."""

    def __init__(self, pid: int, log: Path, skipped_bytes: int) -> None:
        self.pid = pid
        self._log = log
        self._skipped_bytes = skipped_bytes

    def text(self) -> str:
        with self._log.open("rb") as stream:
            stream.seek(self._skipped_bytes)
            return stream.read().decode("utf-8", "replace")

    def tell(self, pids: Iterable[int]) -> dict[str, Any]:
        """Return its moves, and the lines of its log that are about moving; of single processes it says no more."""
        del pids
        text = self.text()
        lines = logs.numad_lines(text)
        return {
            "moves": [_known(move) for move in logs.numad_moves(text)],
            "lines": list(lines[-KEPT_LINES:]),
            "lines_left_out": max(0, len(lines) - KEPT_LINES),
        }


@contextmanager
def numad(folder: Path, house_cpu: int) -> Iterator[Numad]:
    """Run numad until it has said that it is there."""
    del folder  # its log has a fixed place
    skipped = NUMAD_LOG.stat().st_size if NUMAD_LOG.exists() else 0
    with watchers.numad(words=("-l", str(NUMAD_LEVEL), "-R", str(house_cpu))) as pid:
        daemon = Numad(pid, NUMAD_LOG, skipped)
        if f"PID {pid}" not in daemon.text():
            raise RuntimeError(f"{NUMAD_LOG} does not tell of process {pid}: {daemon.text()[-500:]}")
        yield daemon


class Ours:
    """balancerd at work."""

    def __init__(self, service: Balancerd) -> None:
        self._service = service

    @property
    def pid(self) -> int:
        return self._service.process.pid

    def tell(self, pids: Iterable[int]) -> dict[str, Any]:
        """Return its moves, its accounts, its warnings, and how it sees these processes now and saw them before."""
        watched = tuple(pids)
        offset = time.time() - time.monotonic()
        lines = logs.parse_log(self._service.log_text())
        warned = logs.troubles(lines)
        status = self._service.status()
        return {
            "moves": [_known(move) for move in logs.balancerd_moves(lines, offset)],
            "lines": [json.dumps(line) for line in warned[-KEPT_LINES:]],
            "lines_left_out": max(0, len(warned) - KEPT_LINES),
            "accounts": {key: status["totals"][key] for key in ACCOUNTS},
            "managers": {each["manager"]: each["yields"] for each in status["managers"] or () if each["active"]},
            "reasons": list(logs.reason_changes(lines, watched, offset)),
            "processes": {str(pid): self._explain(pid) for pid in watched},
            "settings": dict(SETTINGS),
        }

    def _explain(self, pid: int) -> Mapping[str, Any]:
        """Return what `explain` knows; a process that it does not know is told as such."""
        try:
            found = self._service.explain(pid)
        except ControlFailure as failure:
            return {"unknown": str(failure)}
        return {key: found[key] for key in FACTS}


SETTINGS = {**EMULATED, "migrate.stall_target": "200ms", "migrate.copy_on": "0-4", "log.level": "debug"}
"""A call that moves 2 MiB takes 100 to 300 ms here, and 20 to 50 times less on hardware: so is what it may take. And a
daemon that the harness keeps on one CPU may yet copy on all, as it may where nobody does that."""


@contextmanager
def balancerd(folder: Path, house_cpu: int, *, config: str = "") -> Iterator[Ours]:
    """Run balancerd until its first tick has ended."""
    del house_cpu
    with Balancerd(folder, config, overrides=SETTINGS) as service:
        yield Ours(service)


def with_accesses(source: str) -> str:
    """A configuration with the policies that judge by accesses, and the source that tells them."""
    return f"""
policies:
  - {{name: home, kind: follow-cpu}}
  - {{name: parts, kind: access, min_rss: 64MiB}}  # less than by default, as copying takes so long here
  - {{name: shared, kind: interleave}}
accesses:
  sources: [{source}]
  budget: 50%  # judging takes 20 to 50 times as long here
"""


RIVALS: dict[str, Rival] = {
    rival.name: rival
    for rival in (
        Rival(name="nothing", summary="nobody moves anything"),
        Rival(name="kernel", summary="the kernel's own balancer, kernel.numa_balancing=1", is_kernel_on=True),
        Rival(name="numad", summary="Debian's numad -S 1 -i 5, past its first 300 s", start=numad),
        Rival(name="balancerd", summary="balancerd with its default configuration", start=balancerd),
        Rival(
            name="balancerd+access",
            summary="balancerd with the policies access and interleave besides, which sample registers",
            start=partial(balancerd, config=with_accesses("registers")),
        ),
        Rival(
            name="balancerd+hints",
            summary="the same policies, which see the kernel's hint faults; the kernel moves pages by them, too",
            is_kernel_on=True,
            start=partial(balancerd, config=with_accesses("hint-faults")),
        ),
        Rival(name="balancerd+kernel", summary="the two together", is_kernel_on=True, start=balancerd),
        Rival(name="bound", summary="the best static placement from the start, nobody moves anything", is_bound=True),
    )
}


@contextmanager
def at_work(rival: Rival, folder: Path, house_cpu: int) -> Iterator[Daemon | None]:
    """Let a rival's daemon balance, if it has one; it is ready."""
    with ExitStack() as stack:
        yield None if rival.start is None else stack.enter_context(rival.start(folder, house_cpu))


@contextmanager
def kernel_balancing(rival: Rival, balancing: Path = BALANCING) -> Iterator[Callable[[], object]]:
    """Give what lets the kernel balance when the work begins, if the rival wants that. Afterwards it balances no more.

    Before, while memory is first touched where it will be misplaced, all faults are local: from these the kernel would
    learn to look rarely, and how much it learns would depend on how long the touching takes beside a daemon.
    """
    balancing.write_text("0", encoding="ascii")
    try:
        yield partial(balancing.write_text, str(int(rival.is_kernel_on)), encoding="ascii")
    finally:
        balancing.write_text("0", encoding="ascii")


def _known(move: logs.Move) -> dict[str, Any]:
    return {key: value for key, value in asdict(move).items() if value is not None}
