"""Whole ticks of the policy tiering over a machine that knows every page: hot parts come up, cold ones go down."""

from collections import Counter
from collections.abc import Iterable, Sequence

import pytest

from balancerd.engine.memory import new_memory
from balancerd.engine.plan import PlanLimits
from balancerd.engine.select import Criteria
from balancerd.engine.tick import Engine, Settings
from balancerd.model.decision import Reason
from balancerd.model.heat import HeatMethod, HeatRegion, Heats, HeatWindow
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.report import TickReport
from balancerd.model.sample import PAGE_BYTES, Survey
from balancerd.policies import follow_cpu, tiering
from balancerd.ports import Policy, PolicyContext, SurveyScope
from tests.unit.engine.test_tick_accesses import PID, Machine
from tests.unit.fakes import GIB, MIB, FakeClock, make_rates, make_survey
from tests.unit.jobs.machine import START, Memory, a_vma
from tests.unit.policies.tiers import make_tiered_process, make_tiers

PART_PAGES = 1024
KEPT = 16 * MIB + 8 * GIB // 10
CONTEXT = PolicyContext(migration_bytes_per_second=GIB)


class TieredMachine(Machine):
    """`room_bytes` is what node 1 has beyond watermark and reserve while nothing of the process is there."""

    def __init__(self, clock: FakeClock, nodes: Sequence[int]) -> None:
        """One part on each of `nodes`, in one mapping."""
        super().__init__(clock)
        self.process = make_tiered_process()
        self.room_bytes = 4 * GIB
        pages: list[int | None] = [node for node in nodes for _ in range(PART_PAGES)]
        self.memories[PID] = Memory(vmas={a_vma(0, len(pages)): pages})

    def survey(self, scope: SurveyScope) -> Survey:  # noqa: ARG002 - there is one process
        there = self.memories[PID].nodes()[1] * PAGE_BYTES
        free_bytes = {0: KEPT, 1: KEPT + self.room_bytes - there}
        return make_survey(self.process, at=self.clock.now(), topology=make_tiers(), free_bytes=free_bytes)

    def on_node(self, node: int) -> list[float]:
        """The share of each part that lies on a node."""
        (pages,) = self.memories[PID].vmas.values()
        return [pages[i : i + PART_PAGES].count(node) / PART_PAGES for i in range(0, len(pages), PART_PAGES)]


class PartsHeat:
    """A HeatWatch: the heat of each part, and where it lies unless it `is_lost`."""

    def __init__(self, kernel: TieredMachine, ratios: Sequence[float], *, is_lost: bool = False) -> None:
        self.kernel, self.ratios, self.is_lost = kernel, list(ratios), is_lost
        self.asked: list[tuple[ProcessId, ...]] = []

    def read(self, asked: Sequence[ProcessId], others: Iterable[ProcessId]) -> Heats:
        del others
        self.asked.append(tuple(asked))
        size = PART_PAGES * PAGE_BYTES
        regions = tuple(
            HeatRegion(start=START + i * size, end=START + (i + 1) * size, ratio=ratio, pages_by_node=self._pages(i))
            for i, ratio in enumerate(self.ratios)
        )
        now = self.kernel.clock.now()
        window = HeatWindow(
            process=PID, taken_at=now, seconds=2.0, watched_seconds=60.0, method=HeatMethod.DAMON, regions=regions
        )
        return Heats(method=HeatMethod.DAMON, windows={PID: window})

    def _pages(self, index: int) -> dict[NodeId, float] | None:
        (pages,) = self.kernel.memories[PID].vmas.values()
        held = Counter(pages[index * PART_PAGES : (index + 1) * PART_PAGES])
        return None if self.is_lost else {NodeId(n): float(count) for n, count in held.items() if n is not None}


class Run:
    """An engine with tiering before follow-cpu."""

    def __init__(
        self, nodes: Sequence[int], ratios: Sequence[float], *, process_mib: float = 1024, is_lost: bool = False
    ) -> None:
        self.clock = FakeClock()
        self.kernel = TieredMachine(self.clock, nodes)
        self.heat = PartsHeat(self.kernel, ratios, is_lost=is_lost)
        policies: list[Policy] = [
            tiering.plugin.build("tiers", tiering.TieringOptions(headroom_ratio=0.0), CONTEXT),
            follow_cpu.plugin.build("home", follow_cpu.FollowCpuOptions(), CONTEXT),
        ]
        settings = Settings(
            criteria=Criteria(min_rss_bytes=64 * MIB, min_cpu_cores=0.05, min_age_seconds=30.0, own_pid=1),
            scan_budget_ratio=0.01,
            limits=PlanLimits(budget_seconds=1.0, watermark_ratio=0.02, places={"tiers": 0, "home": 1}),
            rates=make_rates(process_mib=process_mib),
            cooldown_seconds=20.0,
        )
        self.memory = new_memory(cooldown_seconds=20.0, rates=settings.rates, scan_budget_ratio=0.01)
        self.engine = Engine(
            kernel=self.kernel,
            clock=self.clock,
            policies=policies,
            settings=settings,
            should_stop=lambda: False,
            memory=self.memory,
            heat_watch=self.heat,
        )

    def ticks(self, number: int) -> list[TickReport]:
        reports = []
        for _ in range(number):
            reports.append(self.engine.tick())
            self.clock.time += 2.0
        return reports


def test_the_hot_part_comes_up_the_cold_ones_stay_and_every_page_is_accounted_for() -> None:
    run = Run([2, 2, 2, 2, 2, 2], [0, 0, 0.9, 0, 0, 0])
    reports = run.ticks(20)
    assert run.kernel.on_node(1) == [0, 0, 1, 0, 0, 0]
    outcomes = [outcome for report in reports for outcome in report.outcomes]
    assert sum(outcome.moved_pages for outcome in outcomes) == PART_PAGES
    assert all(o.looked_pages == o.submitted_pages + o.on_target_pages + sum(o.passed_over.values()) for o in outcomes)
    assert {o.step.policy for o in outcomes} == {"tiers"}
    assert reports[-1].processes[0].reason is Reason.IN_ITS_TIER
    (move,) = run.memory.moves.recent()
    assert (move.target, move.moved_pages, move.reason) == (1, PART_PAGES, Reason.PROMOTION)


def test_without_knowing_where_parts_lie_it_takes_longer_and_ends_the_same() -> None:
    run = Run([1, 2, 2, 2, 2, 2], [0.9, 0, 0.9, 0, 0, 0], is_lost=True)
    outcomes = [outcome for report in run.ticks(60) for outcome in report.outcomes]
    assert run.kernel.on_node(1) == [1, 0, 1, 0, 0, 0]
    assert len(outcomes) <= 30, "it is asked in vain, but not for ever"


def test_follow_cpu_does_not_bring_up_what_is_cold() -> None:
    run = Run([1, 1, 2, 2], [0.9, 0.5, 0, 0])
    reports = run.ticks(60)
    assert run.kernel.on_node(2) == [0, 0, 1, 1]
    assert any(v.reason is Reason.CLAIMED for report in reports for v in report.plan.rejected)


@pytest.mark.parametrize("process_mib", [1024, 1.5])
def test_with_the_fast_node_short_hot_and_cold_parts_change_places(process_mib: float) -> None:
    run = Run([1, 1, 2, 2], [0, 0.9, 0.9, 0], process_mib=process_mib)
    run.kernel.room_bytes = 2 * PART_PAGES * PAGE_BYTES - 4 * MIB
    run.ticks(40)
    assert run.kernel.on_node(1)[0] == 0.0
    run.kernel.room_bytes = 2 * PART_PAGES * PAGE_BYTES
    run.ticks(60)
    assert run.kernel.on_node(1) == [0, 1, 1, 0]
    assert run.ticks(20)[-1].processes[0].reason is Reason.IN_ITS_TIER
    moved = [(o.step.reason, o.moved_pages) for report in run.ticks(40) for o in report.outcomes]
    assert sum(pages for _, pages in moved) == 0


def test_parts_whose_heat_swings_soon_move_no_more() -> None:
    run = Run([1, 2], [0.9, 0.0])
    run.kernel.room_bytes = PART_PAGES * PAGE_BYTES - 2 * MIB
    moved = []
    for period in range(40):
        run.heat.ratios = [0.9, 0.0] if period % 2 else [0.0, 0.9]
        moved.append(sum(o.moved_pages for report in run.ticks(15) for o in report.outcomes))
    assert sum(moved[20:]) <= 2 * PART_PAGES
    assert NodeId(2) in make_tiers().memory_nodes
