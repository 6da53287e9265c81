"""One call of the native core: how many pages it may take, how much room huge pages have, and what it cost.

Owns the sizes of batches and groups, and what calls have told that came back too late for their step. Must not know why
pages move or what is done about those that do not.
"""

import math
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from balancerd import native
from balancerd.kernel.moving.account import MOST_RUNS, Account, seconds_of_calls
from balancerd.kernel.moving.batch import BatchSize
from balancerd.kernel.moving.cpus import CopyingCpus
from balancerd.kernel.moving.group import LARGEST_PAGES, GroupSize
from balancerd.kernel.moving.legs import Leg, Way
from balancerd.kernel.moving.pacing import Pace, StepPace
from balancerd.kernel.moving.patience import Caller, LateAnswers, call_holding, drop
from balancerd.kernel.moving.retry import Retries
from balancerd.kernel.moving.room import Room
from balancerd.kernel.moving.verify import PlacementCore
from balancerd.kernel.processes.identity import HeldProcess
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import MigrationStep
from balancerd.model.sample import PAGE_BYTES
from balancerd.native.records import Cursor, Migration

_LOOKS_PER_BATCH = 8
"""Pages looked at in search of one batch: asking is cheaper than moving, and a call with few pages is dear."""

_ENOUGH_LOOK_PAGES = 32768
"""A few milliseconds of asking."""

_IDLE_CALLS = 3
"""About 30 us each on an idle machine, and so few that their sum hardly counts where CPUs are busy."""

_PRICE_SECONDS = 10.0
"""How long a price holds: where CPUs are busy, and the more so where they are emulated, an idle call is as dear as one
that moves pages, and many short steps would pay more for the price than for the moving."""

_FEW_RUNS = 256
"""Runs asked of a call when those that moved are no longer recorded: some of what failed still is."""


class MigrateCore(PlacementCore, Protocol):
    """The native functions that move pages and ask for them; balancerd.native has them."""

    def idle_call(self) -> float:
        """Return the seconds of a call that moves nothing. Raises OSError."""
        ...

    def migrate(
        self,
        pid: int,
        ranges: native.RangeArray,
        *,
        node: int | None,
        target_of: Mapping[int, int] | None,
        cursor: Cursor,
        batch_pages: int,
        group_pages: int,
        look_pages: int,
        step_pages: int,
        move_all: bool,
        huge_bytes: int,
        large_room_pages: int | None,
        run_capacity: int,
        pidfd: int,
    ) -> Migration:
        """Move batches from the cursor on until `step_pages` were submitted; errors of the call are in the result."""
        ...


@dataclass(slots=True)
class Work:
    """One step on its way. `huge` are the mappings that hold transparent huge pages, None while nobody asked.

    `refusals_for_memory` counts the latest calls in a row that found no room on a target that has some.
    """

    step: MigrationStep
    pace: StepPace
    account: Account
    way: Way
    retries: Retries = field(default_factory=Retries)
    huge: tuple[tuple[int, int], ...] | None = None
    refusals_for_memory: int = 0

    @property
    def left_pages(self) -> int:
        """How many more pages the step may submit."""
        return self.step.budget_bytes // PAGE_BYTES - self.account.submitted_pages

    def has_pages(self) -> bool:
        """Whether pages lie ahead that the step may submit."""
        return not self.way.is_done and self.left_pages > 0

    @property
    def targets(self) -> frozenset[NodeId]:
        """The nodes that pages go to."""
        target_of = self.step.target_of
        if target_of is None:
            return frozenset({self.step.target})
        return frozenset(target for source, target in target_of.items() if source != target)


class Calls:
    """Calls the core. It remembers from one call to the next the sizes of a batch and its groups that have done well.

    And of each process where its pages came from: where they are best copied if not on the target.
    """

    def __init__(self, core: MigrateCore, room: Room, pace: Pace, caller: Caller, copying: CopyingCpus) -> None:
        self.batch = BatchSize(pace.stall_target_seconds, pace.first_batch_pages)
        self.late: LateAnswers[Migration] = LateAnswers()
        self._sources: dict[ProcessId, NodeId] = {}
        self._core = core
        self._caller = caller
        self._copying = copying
        self._group = GroupSize(pace.group_pages)
        self._room = room
        self._price_until = -math.inf

    def relearn(self, pace: Pace) -> None:
        """Learn the sizes of a batch and a group anew."""
        self.batch, self._price_until = BatchSize(pace.stall_target_seconds, pace.first_batch_pages), -math.inf
        self._group = GroupSize(pace.group_pages)

    def learn_price(self, now: float) -> None:
        """Learn what a call costs that moves nothing, unless that is known since a short while. Raises OSError."""
        if now < self._price_until:
            return
        for _ in range(_IDLE_CALLS):
            self.batch.idle_call_took(self._core.idle_call())
        self._price_until = now + _PRICE_SECONDS

    def call(self, work: Work, way: Way, held: HeldProcess, most_pages: int) -> Migration:
        """Move what comes next on `way`: a few batches, and at most `most_pages` but for the block that they end in.

        Raises OSError, ProcessGoneError, and BlockedError: then nothing is known of the pages until `late` has it.
        """
        step, leg = work.step, way.leg
        room_pages = self._room_pages(work, way, most_pages)
        batch_pages, group_pages = min(self.batch.pages, most_pages), self._group.pages
        source = self._source_of(work)
        batches = 1 if source is None else self.batch.batches  # then it knows better where to copy
        step_pages = min(batches * batch_pages, most_pages)
        make: Callable[..., Migration] = partial(
            self._core.migrate,
            step.process.pid,
            way.array,
            node=step.target if step.target_of is None else None,
            target_of=None if step.target_of is None else {int(a): int(b) for a, b in step.target_of.items()},
            cursor=way.cursor,
            batch_pages=batch_pages,
            group_pages=group_pages,
            look_pages=max(step_pages, min(_LOOKS_PER_BATCH * step_pages, _ENOUGH_LOOK_PAGES)),
            step_pages=step_pages,
            move_all=step.move_all or leg.all_sharers,
            huge_bytes=way.leg.huge_bytes,
            large_room_pages=room_pages,
            run_capacity=MOST_RUNS if len(work.account.moved_runs) < MOST_RUNS else _FEW_RUNS,
        )
        only_target = tuple(work.targets) if len(work.targets) == 1 else ()
        near = only_target if source is None else (*only_target, source)
        done: Migration = call_holding(
            self._caller,
            held,
            lambda pidfd: self._copying.run(near, partial(make, pidfd=pidfd)),
            partial(self.late.keep, step.process),
        )
        way.went(done.cursor, is_done=done.is_done)
        if done.calls:
            work.pace.called(seconds_of_calls(done), self.batch.idle_price_seconds, done.largest_call_pages)
            self.batch.took(done.longest_call_seconds, done.largest_call_pages)
            self._learn_group(group_pages, done, leg)
        return done

    def forget_all_but(self, alive: AbstractSet[ProcessId]) -> None:
        """Drop what is remembered of processes that have ended."""
        self.late.forget_all_but(alive)
        for process in self._sources.keys() - alive:
            del self._sources[process]

    def _learn_group(self, group_pages: int, done: Migration, leg: Leg) -> None:
        """Learn from base pages that all moved, in calls that any group fits into."""
        all_moved = 0 < done.moved_pages == done.submitted_pages and not done.whole_folios
        if all_moved and leg.page_bytes == PAGE_BYTES and done.largest_call_pages >= LARGEST_PAGES:
            copying_seconds = done.moving_seconds - done.calls * self.batch.idle_price_seconds
            self._group.took(group_pages, max(0.0, copying_seconds) / done.moved_pages)

    def _source_of(self, work: Work) -> NodeId | None:
        """Return the node that most pages of this step came from, or at its beginning those of the one before."""
        source = work.account.main_source
        if source is not None:
            self._sources[work.step.process] = source
        return self._sources.get(work.step.process)

    def _room_pages(self, work: Work, way: Way, most_pages: int) -> int | None:
        """Return how many pages huge ones may take now; None where there are none.

        Where room is short of what lies ahead, base pages are told from huge ones, so that they at least go on moving:
        once a step, since reading smaps takes time in proportion to the memory that it describes, and not at all where
        no node holds any huge page.
        """
        leg = way.leg
        if leg.page_bytes != PAGE_BYTES:
            return self._room.hugetlb_pages(work.targets, leg.page_bytes)
        if leg.huge_bytes == 0:
            return None
        room_pages = self._room.huge_pages(work.targets)
        if work.huge is None and room_pages < min(most_pages, way.left_pages):
            pid = work.step.process.pid
            work.huge = self._caller.call(work.step.process, lambda: self._room.huge_mappings(pid), drop)
            way.tell_apart(work.huge)
            if way is not work.way:
                work.way.tell_apart(work.huge)
        return room_pages if way.leg.huge_bytes else None
