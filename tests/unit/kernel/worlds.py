"""A process whose memory is a table, and a core that moves it: for tests of what happens around the calls."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from balancerd import native
from balancerd.kernel.moving.claims import Claims
from balancerd.kernel.moving.evict import Evictor
from balancerd.kernel.moving.migrate import Mover
from balancerd.kernel.moving.pacing import Pace, Pacer
from balancerd.kernel.placement.mappings import Mappings
from balancerd.kernel.processes.identity import read_start_ticks
from balancerd.model.decision import Reason
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import EvictionStep, MigrationOutcome, MigrationStep, Range
from balancerd.native.records import Cursor, Eviction, Migration, Placement, RangePlacement, Run, Tally, VmaTally
from tests.unit.fakes import FakeClock
from tests.unit.kernel.trees import MACHINES, write_tree

T = TypeVar("T")

PAGE = 4096
HUGE = 2 << 20
START = 0x7F0000000000
OWN = ProcessId(os.getpid(), read_start_ticks(os.getpid()))
NO_LIMITS = Pace(
    stall_target_seconds=0.005,
    stall_limit_seconds=1e9,
    duty_ratio=1.0,
    max_memory_pressure_ratio=None,
    max_cpu_pressure_ratio=None,
)
CAPTURED = MACHINES / "four-nodes-6.12/proc"


def never() -> bool:
    return False


class FakeCore:
    """Pages of one process by address, in what they do when they are to move.

    `nodes` is where each page is; `fails` gives the errnos of its next tries, 0 for none; a page in `huge` (first
    addresses) moves with the 511 behind it. `change` may spoil what a call tells, `before_call` what it finds.
    """

    def __init__(self, clock: FakeClock, seconds_per_page: float = 1e-6) -> None:
        self.clock = clock
        self.seconds_per_page = seconds_per_page
        self.price_seconds = 0.0
        self.group_seconds = 0.0
        self.idle_calls = 0
        self.nodes: dict[int, int] = {}
        self.fails: dict[int, list[int]] = {}
        self.huge: set[int] = set()
        self.calls: list[dict[str, object]] = []
        self.ranges: list[list[tuple[int, int, int]]] = []
        self.change: Callable[[Migration], Migration] = lambda done: done
        self.before_call: Callable[[], None] = lambda: None
        self.gone: int | None = None
        self.kept: set[int] = set()
        self.samples: list[tuple[int, int]] = []

    @property
    def batches(self) -> list[object]:
        return [call["batch_pages"] for call in self.calls]

    def idle_call(self) -> float:
        self.idle_calls += 1
        return self.price_seconds

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
        """Move one batch."""
        assert pidfd > 0
        assert pid == OWN.pid
        assert (node is None) == (target_of is not None)
        assert look_pages >= step_pages >= batch_pages > 0
        assert run_capacity > 0
        rows = unpack(ranges)
        self.calls.append(
            {
                "batch_pages": batch_pages,
                "group_pages": group_pages,
                "move_all": move_all,
                "huge_bytes": huge_bytes,
                "large_room_pages": large_room_pages,
                "at": self.clock.time,
            }
        )
        self.ranges.append(rows)
        self.before_call()
        count: Counter[str] = Counter()
        sources: Counter[int] = Counter()
        errors: Counter[int] = Counter()
        before: Counter[int] = Counter()
        runs: list[Run] = []
        room = large_room_pages
        at = cursor
        while at.range_index < len(rows) and count["submitted"] < batch_pages and count["looked"] < look_pages:
            start, end, page_bytes = rows[at.range_index]
            address = max(start, at.address)
            if address >= end:
                at = Cursor(range_index=at.range_index + 1)
                continue
            is_large = page_bytes > PAGE or (huge_bytes > 0 and address in self.huge)
            length = max(page_bytes, HUGE if huge_bytes > 0 and address in self.huge else 0)
            weight = length // PAGE
            at = Cursor(range_index=at.range_index, address=address + length)
            count["looked"] += weight
            source = self.nodes.get(address)
            target = None if source is None else node if target_of is None else target_of.get(source)
            if source is None:
                count["absent"] += weight
            elif source < 0:
                before[-source] += weight
            elif target is None:
                count["left_alone"] += weight
            elif source == target:
                count["already"] += weight
            elif is_large and room is not None and room < weight:
                count["no_room"] += weight
            else:
                room = room if room is None or not is_large else room - weight
                count["submitted"] += weight
                tries = self.fails.get(address, [])
                error = tries.pop(0) if tries else 0
                if error:
                    errors[error] += weight
                else:
                    sources[source] += weight
                    for moved in range(address, address + length, page_bytes):
                        self.nodes[moved] = target
                add_run(
                    runs,
                    Run(
                        start=address,
                        end=address + length,
                        page_bytes=page_bytes,
                        source=source,
                        target=target,
                        error=error,
                    ),
                )
        seconds = self.price_seconds + count["submitted"] * self.seconds_per_page
        seconds += -(-count["submitted"] // (group_pages or 512)) * self.group_seconds
        calls = 1 if count["submitted"] else 0
        self.clock.time += seconds * calls
        while at.range_index < len(rows) and at.address >= rows[at.range_index][1]:
            at = Cursor(range_index=at.range_index + 1)
        unwritten = errors.pop(-1, 0)
        return self.change(
            Migration(
                cursor=at,
                is_done=at.range_index == len(rows),
                error=None,
                looked_pages=count["looked"],
                already_on_target_pages=count["already"],
                absent_pages=count["absent"],
                other_before_pages=before.total(),
                before_errno=tuple(before.items()),
                left_alone_pages=count["left_alone"],
                no_room_pages=count["no_room"],
                submitted_pages=count["submitted"],
                moved_pages=sources.total(),
                by_errno=tuple(errors.items()),
                not_attempted_pages=0,
                unwritten_pages=unwritten,
                stuck_pages=0,
                from_node=tuple(sources.items()),
                refused_pages=0,
                whole_folios=0,
                calls=calls,
                resubmissions=0,
                query_calls=1,
                moving_seconds=seconds * calls,
                query_seconds=seconds / 8,
                largest_call_pages=count["submitted"],
                longest_call_seconds=seconds * calls,
                call_seconds=(seconds,) * calls,
                runs=tuple(runs[:run_capacity]),
                unrecorded_pages=sum(run.end - run.start for run in runs[run_capacity:]) // PAGE,
            )
        )

    def placement(
        self, pid: int, ranges: native.RangeArray, *, n_nodes: int, samples: int = 0, phase: float = 0.0
    ) -> Placement:
        """Tell where pages are: of all ranges in a row, `samples` at equal distances."""
        assert pid == OWN.pid
        if self.gone is not None:
            raise OSError(self.gone, os.strerror(self.gone))
        rows = unpack(ranges)
        pages = [(i, address) for i, (start, end, step) in enumerate(rows) for address in range(start, end, step)]
        distance = len(pages) / samples if 0 < samples < len(pages) else 1.0
        asked = [pages[int((n + phase) * distance)] for n in range(int(len(pages) / distance))]
        found = [[0] * (n_nodes + 2) for _ in rows]
        for i, address in asked:
            node = self.nodes.get(address, n_nodes)
            found[i][node if 0 <= node <= n_nodes else n_nodes + 1] += 1
        return Placement(
            on_node=(),
            by_errno=(),
            queried_pages=len(asked),
            unwritten_pages=0,
            per_range=tuple(
                RangePlacement(on_node=tuple(row[:n_nodes]), absent_pages=row[n_nodes], other_pages=row[n_nodes + 1])
                for row in found
            ),
            calls=1,
            duration_seconds=0.0,
            longest_call_seconds=0.0,
        )

    def sample(
        self, pid: int, table: native.VmaTable, *, n_nodes: int, strata: Iterable[int], questions: int, seed: int
    ) -> Tally:
        """Tell where pages are: of mappings whose stratum is asked, `questions` at equal distances."""
        assert seed >= 0
        wanted = set(strata)
        rows = [(i, table.row(i)) for i in range(len(table))]
        rows = [(i, row) for i, row in rows if row.stratum in wanted]
        self.samples.append((questions, sum(row.end - row.start for _, row in rows) // PAGE))
        ranges = native.RangeArray((row.start, row.end, PAGE) for _, row in rows)
        found = self.placement(pid, ranges, n_nodes=n_nodes, samples=questions, phase=0.5)
        tallies = tuple(
            VmaTally(vma=i, on_node=row.on_node, absent=row.absent_pages, other=row.other_pages)
            for (i, _), row in zip(rows, found.per_range, strict=True)
        )
        on_node = tuple(map(sum, zip(*(row.on_node for row in tallies), strict=True))) or (0,) * n_nodes
        return Tally(
            asked_units=found.queried_pages,
            present_units=sum(on_node),
            units=self.samples[-1][1],
            on_node=on_node,
            differing_pairs=(0,) * n_nodes,
            lone_pairs=(0,) * n_nodes,
            rows=tallies,
            seconds=0.0,
        )

    def evict(
        self,
        pid: int,
        pidfd: int,
        ranges: native.RangeArray,
        *,
        cursor: Cursor,
        batch_pages: int,
        look_pages: int,
        cold_only: bool,
    ) -> Eviction:
        """Advise one batch; pages in `kept` stay, and all with `cold_only`."""
        assert pid == OWN.pid
        assert pidfd >= 0
        rows = unpack(ranges)
        self.calls.append({"batch_pages": batch_pages, "cold_only": cold_only, "at": self.clock.time})
        self.ranges.append(rows)
        self.before_call()
        count: Counter[str] = Counter()
        at = cursor
        while at.range_index < len(rows) and count["advised"] < batch_pages and count["looked"] < look_pages:
            start, end, _ = rows[at.range_index]
            address = max(start, at.address)
            if address >= end:
                at = Cursor(range_index=at.range_index + 1)
                continue
            at = Cursor(range_index=at.range_index, address=address + PAGE)
            count["looked"] += 1
            if address not in self.nodes:
                count["absent"] += 1
            elif cold_only or address in self.kept:
                count["advised"] += 1
                count["kept"] += 1
            else:
                count["advised"] += 1
                count["evicted"] += 1
                del self.nodes[address]
        calls = 1 if count["advised"] else 0
        seconds = count["advised"] * self.seconds_per_page
        self.clock.time += seconds
        return Eviction(
            cursor=at,
            is_done=at.range_index == len(rows) or (at.range_index == len(rows) - 1 and at.address >= rows[-1][1]),
            error=None,
            looked_pages=count["looked"],
            absent_pages=count["absent"],
            other_pages=0,
            advised_pages=count["advised"],
            evicted_pages=count["evicted"],
            kept_pages=count["kept"],
            calls=calls,
            call_seconds=(seconds,) * calls,
            query_seconds=seconds / 8,
        )


def unpack(ranges: native.RangeArray) -> list[tuple[int, int, int]]:
    rows = (ranges.data[i] for i in range(len(ranges)))
    return [(row.start, row.end, row.step_bytes) for row in rows]


def add_run(runs: list[Run], run: Run) -> None:
    """Append a run, merged with its neighbour as the core does."""
    if runs and replace(runs[-1], start=0, end=0) == replace(run, start=0, end=0) and runs[-1].end == run.start:
        runs[-1] = replace(runs[-1], end=run.end)
    else:
        runs.append(run)


def anon(start: int, n_pages: int, name: str = "") -> str:
    """Return a line of maps."""
    return f"{start:x}-{start + n_pages * PAGE:x} rw-p 00000000 00:00 0 {name}\n"


@dataclass
class World:
    """A core, a clock, and the files that a step reads; the process is this one, in mappings that it does not have."""

    root: Path
    clock: FakeClock
    core: FakeCore
    claims: Claims
    pacer: Pacer
    may_move_all: bool = True

    @property
    def mover(self) -> Mover:
        return Mover(
            self.core,
            self.clock,
            self.pacer,
            self.claims,
            sysfs=str(self.root / "sys"),
            phase=lambda: 0.5,
            may_move_all=self.may_move_all,
        )

    @property
    def evictor(self) -> Evictor:
        return Evictor(self.core, self.pacer, self.claims)

    def write(self, files: Mapping[str, str | bytes]) -> None:
        write_tree(self.root, files)

    def maps(self, *lines: str) -> None:
        """Let the process have these mappings."""
        self.write({f"proc/{OWN.pid}/maps": "".join(lines)})

    def fill(self, n_pages: int, *, start: int = START, node: int = 1, page_bytes: int = PAGE) -> None:
        """Let pages be present."""
        self.core.nodes.update(dict.fromkeys(range(start, start + n_pages * page_bytes, page_bytes), node))

    def move(self, step: MigrationStep, should_stop: Callable[[], bool] = never) -> MigrationOutcome:
        outcome = self.mover.migrate(step, should_stop)
        assert_sums(outcome)
        assert self.claims.processes() == frozenset()
        return outcome


class AtOnce:
    """A Caller that makes calls in the thread that asks for them."""

    def call(self, process: ProcessId, make: Callable[[], T], keep: Callable[[T], object]) -> T:
        del process, keep
        return make()


def make_world(root: Path, n_pages: int = 0, *, pace: Pace = NO_LIMITS, seconds_per_page: float = 1e-6) -> World:
    """One mapping of `n_pages` pages, all present on node 1, and room for everything on node 3."""
    clock = FakeClock()
    procfs = root / "proc"
    world = World(
        root=root,
        clock=clock,
        core=FakeCore(clock, seconds_per_page),
        claims=Claims(Mappings(clock, str(procfs)), AtOnce()),
        pacer=Pacer(clock, pace, str(procfs)),
    )
    world.write(
        {
            f"proc/{OWN.pid}/stat": Path(f"/proc/{OWN.pid}/stat").read_bytes(),
            "proc/self/mountinfo": "",
            "proc/buddyinfo": "".join(f"Node {n}, zone   Normal" + " 100000" * 11 + "\n" for n in range(4)),
            "proc/zoneinfo": (CAPTURED / "zoneinfo").read_bytes(),
            "sys/devices/system/node/online": "0-3\n",
            "sys/kernel/mm/transparent_hugepage/hpage_pmd_size": f"{HUGE}\n",
        }
    )
    world.maps(anon(START, n_pages) if n_pages else "")
    world.fill(n_pages)
    return world


def make_step(
    n_pages: int,
    *,
    budget_pages: int = 1 << 30,
    budget_seconds: float = 1e9,
    at: int = 0,
    ranges: Sequence[Range] | None = None,
    target_of: Mapping[int, int] | None = None,
    move_all: bool = False,
) -> MigrationStep:
    return MigrationStep(
        policy="home",
        process=OWN,
        target=NodeId(3),
        ranges=(Range(start=START, end=START + n_pages * PAGE, page_bytes=PAGE),) if ranges is None else tuple(ranges),
        resume_at=at,
        budget_bytes=budget_pages * PAGE,
        budget_seconds=budget_seconds,
        reason=Reason.MISPLACED,
        target_of=None if target_of is None else {NodeId(a): NodeId(b) for a, b in target_of.items()},
        move_all=move_all,
    )


def make_eviction(ranges: Iterable[Range], *, budget_pages: int = 1 << 30, cold_only: bool = False) -> EvictionStep:
    return EvictionStep(
        policy="cold",
        process=OWN,
        ranges=tuple(ranges),
        resume_at=0,
        budget_bytes=budget_pages * PAGE,
        budget_seconds=1e9,
        cold_only=cold_only,
    )


def assert_sums(outcome: MigrationOutcome) -> None:
    """Every page ends in exactly one count, and in at most one run."""
    assert sum(outcome.pages.values()) == outcome.submitted_pages
    assert outcome.looked_pages == (
        outcome.on_target_pages + sum(outcome.passed_over.values()) + outcome.submitted_pages
    )
    assert sum(outcome.moved_from.values()) == outcome.moved_pages
    assert all(n > 0 for n in (*outcome.pages.values(), *outcome.passed_over.values()))
    if outcome.verified is not None:
        v = outcome.verified
        assert v.asked_pages == v.on_target_pages + v.elsewhere_pages + v.absent_pages + v.unknown_pages
