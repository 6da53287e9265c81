"""The daemon's own mover on this machine, with an eye on its calls, and what must be true of each of its outcomes.

Inside the guest.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

from balancerd import native
from balancerd.kernel.clock import MonotonicClock
from balancerd.kernel.live import Core, LiveKernel
from balancerd.kernel.moving.pacing import Pace
from balancerd.kernel.processes.identity import read_start_ticks
from balancerd.model.decision import Reason
from balancerd.model.ids import CpuId, NodeId, ProcessId
from balancerd.model.migration import MigrationOutcome, MigrationStep, Range
from balancerd.model.page_status import NEVER_SUBMITTED, PageStatus
from balancerd.native import Migration

PAGE = 4096


class WatchedCore:
    """The native core, with something done `before` and `after` each call of its function that moves pages."""

    def __init__(
        self, *, before: Callable[[], None] = lambda: None, after: Callable[[Migration], None] = lambda _: None
    ) -> None:
        self.moves: list[Migration] = []
        self._before = before
        self._after = after

    def __getattr__(self, name: str) -> Any:
        return getattr(native, name)

    def migrate(self, *arguments: Any, **keywords: Any) -> Migration:
        self._before()
        done = native.migrate(*arguments, **keywords)
        self.moves.append(done)
        self._after(done)
        return done


def live_kernel(
    core: WatchedCore | None = None,
    *,
    stall_target_seconds: float = 0.2,
    stall_limit_seconds: float = 60.0,
    duty_ratio: float = 1.0,
    copying_cpus: frozenset[CpuId] | None = None,
) -> LiveKernel:
    """The kernel port as the daemon has it; unless told, nothing holds it back: an emulated machine takes its time."""
    pace = Pace(
        stall_target_seconds=stall_target_seconds,
        stall_limit_seconds=stall_limit_seconds,
        duty_ratio=duty_ratio,
        max_memory_pressure_ratio=None,
        max_cpu_pressure_ratio=None,
        copying_cpus=copying_cpus,
    )
    return LiveKernel(MonotonicClock(), pace=pace, core=cast("Core", core or native))


def step_of(
    process: ProcessId | int,
    spans: Sequence[tuple[int, int]],
    target: int,
    *,
    resume_at: int = 0,
    page_bytes: int = PAGE,
    target_of: Mapping[int, int] | None = None,
) -> MigrationStep:
    """One step over all of `spans`, [start, end) each."""
    return MigrationStep(
        policy="test",
        process=ProcessId(process, read_start_ticks(process)) if isinstance(process, int) else process,
        target=NodeId(target),
        ranges=tuple(Range(start=start, end=end, page_bytes=page_bytes) for start, end in spans),
        resume_at=resume_at,
        budget_bytes=sum(end - start for start, end in spans),
        budget_seconds=30.0,
        reason=Reason.COMMAND,
        target_of=None if target_of is None else {NodeId(a): NodeId(b) for a, b in target_of.items()},
    )


def carry_out(kernel: LiveKernel, step: MigrationStep) -> MigrationOutcome:
    """Carry out a step, and hold its outcome to its word."""
    outcome = kernel.migrate(step, lambda: False)
    assert_every_page_is_accounted_for(outcome)
    return outcome


def assert_every_page_is_accounted_for(outcome: MigrationOutcome) -> None:
    assert sum(outcome.pages.values()) == outcome.submitted_pages, outcome
    passed_over = sum(outcome.passed_over.values())
    assert outcome.looked_pages == outcome.on_target_pages + passed_over + outcome.submitted_pages, outcome
    assert sum(outcome.moved_from.values()) == outcome.moved_pages, outcome
    assert not outcome.pages.keys() & NEVER_SUBMITTED, outcome
    assert min([0, *outcome.pages.values(), *outcome.passed_over.values()]) == 0, outcome
    moved = [(run.start, run.end) for run in outcome.moved_runs]
    failed = [(run.start, run.end) for run in outcome.failed_runs]
    recorded = sum(end - start for start, end in moved + failed) // PAGE
    tried = outcome.submitted_pages - outcome.pages.get(PageStatus.NOT_ATTEMPTED, 0)
    assert recorded + outcome.unrecorded_pages == tried, outcome
    assert outcome.unrecorded_pages >= 0, outcome
    moved_in_runs = sum(end - start for start, end in moved) // PAGE
    assert outcome.moved_pages - outcome.unrecorded_pages <= moved_in_runs <= outcome.moved_pages, outcome
    assert all(end <= start for (_, end), (start, _) in pairwise(sorted(moved + failed))), f"runs overlap: {outcome}"
