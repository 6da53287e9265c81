"""Whole ticks of the policy interleave over a machine that knows every page: what all share is spread, then stays."""

from collections import Counter
from collections.abc import Sequence

import pytest

from balancerd.engine.budgets import Rates
from balancerd.engine.interleaving import equal_weights, node_of_region
from balancerd.engine.memory import new_memory
from balancerd.engine.plan import PlanLimits
from balancerd.engine.select import Criteria
from balancerd.engine.tick import Engine, Settings
from balancerd.model.access import REGION_BYTES, Accesses, AccessRegion, AccessRun
from balancerd.model.decision import Decision, Reason
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.page_status import PageStatus
from balancerd.model.report import TickReport
from balancerd.model.sample import PAGE_BYTES
from balancerd.policies import access, follow_cpu, interleave
from balancerd.ports import Policy, PolicyContext
from tests.unit.engine.test_tick_accesses import Machine
from tests.unit.fakes import GIB, MIB, N0, FakeAccessWatch, FakeClock, make_access_window, make_process, make_rates
from tests.unit.jobs.machine import START, Memory, a_vma

PID = ProcessId(100, 1)
NODES = tuple(NodeId(n) for n in range(4))
PAGES = REGION_BYTES // PAGE_BYTES
SHARED = 16
"""Regions that all threads use; behind them each thread has one of its own."""

CONTEXT = PolicyContext(migration_bytes_per_second=GIB)


class Watch(FakeAccessWatch):
    """Knows who uses each region, and where it lies."""

    def __init__(self, kernel: Machine) -> None:
        super().__init__()
        self.kernel = kernel
        self.users: list[tuple[NodeId, ...]] = [NODES] * SHARED + [(node,) for node in NODES]

    def read(self, processes: Sequence[ProcessId]) -> Accesses:
        (pages,) = self.kernel.memories[PID].vmas.values()
        runs, regions = [], []
        for index, users in enumerate(self.users):
            start, weight = START + index * REGION_BYTES, dict.fromkeys(users, 40.0 / len(users))
            held = Counter(pages[index * PAGES : (index + 1) * PAGES])
            where = {NodeId(n): float(c) for n, c in held.items() if n is not None}
            owner = users[0] if len(users) == 1 else None
            regions.append(
                AccessRegion(
                    start=start, weight_by_node=weight, node=owner, pages_by_node=None if owner is not None else where
                )
            )
            if owner is not None:
                end = start + REGION_BYTES
                runs.append(
                    AccessRun(start=start, end=end, node=owner, weight=40.0, node_weight=40.0, pages_by_node=where)
                )
        window = make_access_window(*runs, at=self.kernel.clock.now(), regions=tuple(regions))
        self.windows = {PID: window}
        return super().read(processes)


class Run:
    """An engine with three policies; the process was filled by a main thread on node 0."""

    def __init__(self, *, rates: Rates | None = None, kinds: Sequence[str] = ("home", "parts", "shared")) -> None:
        self.clock = FakeClock()
        self.kernel = Machine(self.clock)
        self.kernel.memories[PID] = Memory(vmas={a_vma(0, (SHARED + 4) * PAGES): [0] * ((SHARED + 4) * PAGES)})
        self.watch = Watch(self.kernel)
        options = interleave.InterleaveOptions(min_shared_bytes=16 * MIB)
        policies: dict[str, Policy] = {
            "home": follow_cpu.plugin.build("home", follow_cpu.FollowCpuOptions(), CONTEXT),
            "parts": access.plugin.build("parts", access.AccessOptions(), CONTEXT),
            "shared": interleave.plugin.build("shared", options, CONTEXT),
        }
        settings = Settings(
            criteria=Criteria(min_rss_bytes=64 * MIB, min_cpu_cores=0.05, min_age_seconds=30.0, own_pid=1),
            scan_budget_ratio=0.01,
            limits=PlanLimits(budget_seconds=1.0, watermark_ratio=0.02),
            rates=rates or make_rates(),
            cooldown_seconds=60.0,
        )
        self.memory = new_memory(cooldown_seconds=60.0, rates=settings.rates, scan_budget_ratio=0.01)
        self.engine = Engine(
            kernel=self.kernel,
            clock=self.clock,
            policies=[policies[kind] for kind in kinds],
            settings=settings,
            should_stop=lambda: False,
            memory=self.memory,
            access_watch=self.watch,
        )

    def ticks(self, number: int) -> list[TickReport]:
        reports = []
        for _ in range(number):
            reports.append(self.engine.tick())
            self.clock.time += 2.0
        return reports

    def nodes(self) -> list[dict[int | None, float]]:
        """Of each region the shares by node."""
        (pages,) = self.kernel.memories[PID].vmas.values()
        counts = (Counter(pages[i * PAGES : (i + 1) * PAGES]) for i in range(SHARED + 4))
        return [{node: count / PAGES for node, count in of.items()} for of in counts]


def places(nodes: Sequence[NodeId]) -> list[dict[int | None, float]]:
    """Where the shared regions belong."""
    weights = equal_weights(nodes)
    return [{node_of_region(START + i * REGION_BYTES, weights): 1.0} for i in range(SHARED)]


def told(report: TickReport) -> list[tuple[int, int]]:
    """The decisions to spread, each as its node and its MiB."""
    return [(v.target, v.misplaced_bytes // MIB) for v in report.verdicts if _spreads(v)]  # type: ignore[union-attr]


def _spreads(verdict: object) -> bool:
    return isinstance(verdict, Decision) and verdict.reason is Reason.SPREAD


def test_what_all_share_is_spread_in_one_tick_and_never_moves_again() -> None:
    run = Run(kinds=("home", "shared"))
    first, *later = run.ticks(200)
    assert told(first) == [(1, 8), (2, 10), (3, 6)]  # of 16 regions 4, 4, 5 and 3; the first are on node 0
    assert run.nodes() == [*places(NODES), *[{0: 1.0}] * 4]  # what belongs to one thread each is not touched
    assert not any(map(told, later))
    assert sum(outcome.moved_pages for report in later for outcome in report.outcomes) == 0
    assert later[-1].processes[0].reason is Reason.BALANCED
    assert later[-1].processes[0].detail == "32 MiB are spread over the nodes 0-3"
    assert all(sum(o.pages.values()) == o.submitted_pages for o in first.outcomes)


def test_a_slow_budget_spreads_bit_by_bit_and_no_page_moves_twice() -> None:
    run = Run(rates=make_rates(process_mib=1.5), kinds=("home", "shared"))
    reports = run.ticks(60)
    outcomes = [outcome for report in reports for outcome in report.outcomes]
    assert len(outcomes) > 6
    assert run.nodes()[:SHARED] == places(NODES)
    assert sum(outcome.moved_pages for outcome in outcomes) == 12 * PAGES
    assert len({outcome.step.move_id for outcome in outcomes}) == 3  # one move for each node
    assert told(reports[0]) == [(1, 8), (2, 10), (3, 6)]
    assert sum(size for _, size in told(reports[3])) < 24


def test_beside_the_policy_access_each_thread_gets_its_own_and_all_share_the_rest_evenly() -> None:
    run = Run()
    run.ticks(10)
    assert run.nodes() == [*places(NODES), *[{n: 1.0} for n in range(4)]]
    assert all(not report.outcomes for report in run.ticks(50))


def test_a_process_that_gathers_on_one_node_is_brought_home_by_follow_cpu() -> None:
    run = Run()
    run.ticks(10)
    run.kernel.process = make_process(run={2: 8.0}, cpu_cores=4.0, rss_bytes=256 * MIB)
    run.watch.users = [(NodeId(2),)] * (SHARED + 4)
    reports = run.ticks(60)
    assert run.nodes() == [{2: 1.0}] * (SHARED + 4)
    assert {o.step.policy for report in reports for o in report.outcomes} <= {"home", "parts"}


def test_threads_that_share_nothing_any_more_get_their_parts_from_the_policy_access() -> None:
    run = Run()
    run.ticks(10)
    run.watch.users = [(node,) for node in NODES for _ in range(5)]
    reports = run.ticks(60)
    assert run.nodes() == [{n: 1.0} for n in range(4) for _ in range(5)]
    assert {o.step.policy for report in reports for o in report.outcomes} == {"parts"}


@pytest.mark.parametrize(
    ("cpu_cores", "nodes"),
    [
        pytest.param(2.0, NODES[:2], id="few: it comes nearer"),
        pytest.param(4.0, NODES, id="many: nearer, it would be more crowded"),
    ],
)
def test_nodes_whose_threads_use_it_no_more_give_their_parts_to_the_others_where_that_pays(
    cpu_cores: float, nodes: tuple[NodeId, ...]
) -> None:
    run = Run(kinds=("home", "shared"))
    run.ticks(5)
    run.kernel.process = make_process(run={0: 4.0, 1: 4.0}, cpu_cores=cpu_cores, rss_bytes=256 * MIB)
    run.watch.users = [NODES[:2]] * SHARED + [(node,) for node in NODES]
    run.ticks(100)
    assert run.nodes()[:SHARED] == places(nodes)


@pytest.mark.parametrize("status", [PageStatus.SHARED, PageStatus.BUSY])
def test_pages_that_refuse_stay_and_are_tried_less_and_less(status: PageStatus) -> None:
    run = Run(kinds=("home", "shared"))
    stuck = next(i for i, place in enumerate(places(NODES)) if N0 not in place)
    start = START + stuck * REGION_BYTES
    run.kernel.memories[PID].status_of = dict.fromkeys(range(start, start + 64 * PAGE_BYTES, PAGE_BYTES), status)
    reports = run.ticks(100)
    (target,) = (node for node in places(NODES)[stuck])
    assert run.nodes()[stuck] == {0: 64 / PAGES, target: 1 - 64 / PAGES}
    assert sum(bool(report.outcomes) for report in reports) < 6
