"""Asking where pages are that are said to have moved. Owns how few answers stand for many pages, and no remedy."""

import random
from collections.abc import Callable, Sequence
from typing import Protocol

from balancerd import native
from balancerd.kernel.errors import ParseError, ProcessGoneError
from balancerd.kernel.files import read_bytes
from balancerd.kernel.machine.topology import parse_ids
from balancerd.kernel.processes.identity import GONE, HeldProcess
from balancerd.model.decision import Reason, Skip
from balancerd.model.migration import MovedRun, RunsNow, Verified, VerifyRequest
from balancerd.native.records import Placement, RangePlacement

NOTHING = Verified(asked_pages=0, on_target_pages=0, elsewhere_pages=0, absent_pages=0)


class PlacementCore(Protocol):
    """The native function that tells where pages are; balancerd.native has it."""

    def placement(
        self, pid: int, ranges: native.RangeArray, *, n_nodes: int, samples: int = 0, phase: float = 0.0
    ) -> Placement:
        """Count which node holds the pages, of all or of so many. Raises OSError."""
        ...


class Verifier:
    """Asks the kernel by move_pages(2) without nodes. `phase` returns numbers in [0, 1): where samples begin."""

    def __init__(
        self,
        core: PlacementCore,
        procfs: str = "/proc",
        sysfs: str = "/sys",
        phase: Callable[[], float] = random.random,
    ) -> None:
        self._core = core
        self._procfs = procfs
        self._sysfs = sysfs
        self._phase = phase

    def verify(self, request: VerifyRequest) -> RunsNow | Skip:
        """Answer a request; a Skip tells that the process is gone or cannot be asked."""
        process = request.process
        try:
            with HeldProcess(process, self._procfs):
                runs = self.ask(process.pid, request.runs, request.asked_pages)
        except ProcessGoneError as error:
            reason, detail = Reason.VANISHED, str(error)
        except PermissionError as error:
            reason, detail = Reason.NO_ACCESS, str(error)
        except (ParseError, OSError) as error:
            reason, detail = Reason.UNREADABLE, str(error)
        else:
            return RunsNow(process=process, runs=runs, total=total(runs))
        return Skip(by="kernel", process=process, reason=reason, detail=detail)

    def ask(self, pid: int, runs: Sequence[MovedRun], asked_pages: int) -> tuple[Verified, ...]:
        """Ask for up to `asked_pages` pages of `runs`, systematically spread; one answer for each run.

        Raises ProcessGoneError, also when the process is about to be gone, and OSError otherwise.
        """
        if not runs or asked_pages <= 0:
            return (NOTHING,) * len(runs)
        path = f"{self._sysfs}/devices/system/node/online"
        n_nodes = max(parse_ids(read_bytes(path), path)) + 1
        ranges = native.RangeArray((run.start, run.end, run.page_bytes) for run in runs)
        try:
            found = self._core.placement(pid, ranges, n_nodes=n_nodes, samples=asked_pages, phase=self._phase())
        except OSError as error:
            if error.errno in GONE:
                raise ProcessGoneError(f"process {pid} exited while it was asked for its pages") from error
            raise
        return tuple(map(_judge, runs, found.per_range))


def total(runs: Sequence[Verified]) -> Verified:
    """Return the sum of some answers."""
    return Verified(
        asked_pages=sum(run.asked_pages for run in runs),
        on_target_pages=sum(run.on_target_pages for run in runs),
        elsewhere_pages=sum(run.elsewhere_pages for run in runs),
        absent_pages=sum(run.absent_pages for run in runs),
        unknown_pages=sum(run.unknown_pages for run in runs),
    )


def _judge(run: MovedRun, found: RangePlacement) -> Verified:
    present = sum(found.on_node)
    on_target = found.on_node[run.target] if run.target < len(found.on_node) else 0
    return Verified(
        asked_pages=present + found.absent_pages + found.other_pages,
        on_target_pages=on_target,
        elsewhere_pages=present - on_target,
        absent_pages=found.absent_pages,
        unknown_pages=found.other_pages,
    )
