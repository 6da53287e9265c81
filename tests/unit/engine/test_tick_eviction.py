"""Whole ticks of the policy cold-eviction over a machine that knows every page."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from balancerd.engine.memory import new_memory
from balancerd.engine.plan import PlanLimits
from balancerd.engine.select import Criteria
from balancerd.engine.tick import Engine, Settings
from balancerd.model.decision import Reason
from balancerd.model.heat import HeatMethod, HeatRegion, Heats, HeatWindow
from balancerd.model.ids import ProcessId
from balancerd.model.page_status import PageStatus
from balancerd.model.report import TickReport
from balancerd.model.sample import PAGE_BYTES, Pressure, Survey
from balancerd.policies import cold_eviction
from balancerd.policies.cold_eviction import LEAST_COLD_BYTES
from balancerd.ports import PolicyContext, SurveyScope
from tests.unit.engine.test_tick_accesses import PID, Machine
from tests.unit.fakes import GIB, MIB, N0, FakeAccessWatch, FakeClock, make_process, make_rates, make_survey
from tests.unit.jobs.machine import START, Memory, a_vma

PART_PAGES = 1024
_STUCK = PageStatus.LOCKED


class PressedMachine(Machine):
    """One process of a hot part and cold ones, idle as a whole when it `is_idle`; `pressure_ratio` is the machine's."""

    def __init__(self, clock: FakeClock, n_parts: int) -> None:
        super().__init__(clock)
        self.process = make_process(rss_bytes=256 * MIB)
        self.pressure_ratio = 0.0
        self.is_idle = False
        pages: list[int | None] = [0] * (n_parts * PART_PAGES)
        self.memories[PID] = Memory(vmas={a_vma(0, len(pages)): pages})

    def survey(self, scope: SurveyScope) -> Survey:  # noqa: ARG002 - there is one process
        pressure = Pressure(cpu_ratio=0.0, memory_ratio=self.pressure_ratio)
        process = replace(self.process, cpu_cores=0.0, run_seconds=None) if self.is_idle else self.process
        return make_survey(process, at=self.clock.now(), pressure=pressure)

    def present(self) -> list[int]:
        """The pages of each part that are in memory."""
        (pages,) = self.memories[PID].vmas.values()
        parts = [pages[i : i + PART_PAGES] for i in range(0, len(pages), PART_PAGES)]
        return [PART_PAGES - part.count(None) for part in parts]


class AgesHeat:
    """A HeatWatch: the first part is hot, the others were not used for `age_seconds`."""

    def __init__(self, kernel: PressedMachine, age_seconds: float = 500.0) -> None:
        self.kernel, self.age_seconds = kernel, age_seconds
        self.asked: list[tuple[ProcessId, ...]] = []

    def read(self, asked: Sequence[ProcessId], others: Iterable[ProcessId]) -> Heats:
        del others
        self.asked.append(tuple(asked))
        size = PART_PAGES * PAGE_BYTES
        regions = tuple(
            HeatRegion(
                start=START + i * size,
                end=START + (i + 1) * size,
                ratio=0.0 if i else 0.9,
                age_seconds=self.age_seconds,
                pages_by_node={N0: float(pages)} if pages else {},
            )
            for i, pages in enumerate(self.kernel.present())
        )
        window = HeatWindow(
            process=PID,
            taken_at=self.kernel.clock.now(),
            seconds=2.0,
            watched_seconds=300.0,
            method=HeatMethod.DAMON,
            regions=regions,
        )
        return Heats(method=HeatMethod.DAMON, windows={PID: window})


class Run:
    """An engine with this policy alone."""

    def __init__(self, *, n_parts: int = 4, rate_mib: int = 1) -> None:
        self.clock = FakeClock()
        self.kernel = PressedMachine(self.clock, n_parts)
        self.heat = AgesHeat(self.kernel)
        options = cold_eviction.ColdEvictionOptions(rate_limit_bytes_per_second=rate_mib * MIB)
        policy = cold_eviction.plugin.build("cold", options, PolicyContext(migration_bytes_per_second=GIB))
        settings = Settings(
            criteria=Criteria(
                min_rss_bytes=64 * MIB, min_cpu_cores=0.05, min_age_seconds=30.0, own_pid=1, placing=True
            ),
            scan_budget_ratio=0.01,
            limits=PlanLimits(budget_seconds=1.0, watermark_ratio=0.02),
            rates=make_rates(),
            cooldown_seconds=60.0,
        )
        self.memory = new_memory(cooldown_seconds=60.0, rates=settings.rates, scan_budget_ratio=0.01)
        self.engine = Engine(
            kernel=self.kernel,
            clock=self.clock,
            policies=[policy],
            settings=settings,
            should_stop=lambda: False,
            memory=self.memory,
            access_watch=FakeAccessWatch(),
            heat_watch=self.heat,
        )

    def ticks(self, number: int) -> list[TickReport]:
        reports = []
        for _ in range(number):
            reports.append(self.engine.tick())
            self.clock.time += 2.0
        return reports


def test_what_is_cold_leaves_by_and_by_and_every_page_is_accounted_for() -> None:
    run = Run()
    reports = run.ticks(40)
    hot, *cold = run.kernel.present()
    assert (hot, cold[:2]) == (PART_PAGES, [0, 0])
    assert cold[2] * PAGE_BYTES < LEAST_COLD_BYTES
    outcomes = [outcome for report in reports for outcome in report.evictions]
    assert sum(o.evicted_pages for o in outcomes) == 3 * PART_PAGES - cold[2]
    assert all(o.advised_pages == o.evicted_pages + o.kept_pages for o in outcomes)
    assert all(o.looked_pages == o.absent_pages + o.other_pages + o.advised_pages for o in outcomes)
    each = 0.01 * 256 * MIB * 2.0 / 6.0
    assert max(o.evicted_pages for o in outcomes) * PAGE_BYTES <= each + PAGE_BYTES
    assert len(outcomes) * each >= (3 * PART_PAGES - cold[2]) * PAGE_BYTES, "no hold between steps"
    assert reports[-1].processes[0].reason is Reason.NOTHING_COLD
    assert sum(o.looked_pages for o in outcomes) <= 4 * PART_PAGES, "each step goes on where the last one ended"


def test_an_idle_process_is_evicted_from_too() -> None:
    run = Run()
    run.kernel.is_idle = True
    reports = run.ticks(40)
    assert not any(report.disabled_policies for report in reports)
    assert run.heat.asked[-1] == (PID,)
    assert sum(run.kernel.present()) * PAGE_BYTES < PART_PAGES * PAGE_BYTES + LEAST_COLD_BYTES


def test_it_stops_under_pressure_and_goes_on_after_it() -> None:
    run = Run()
    run.ticks(5)
    before = run.kernel.present()
    run.kernel.pressure_ratio = 0.002
    reports = run.ticks(10)
    assert run.kernel.present() == before
    assert {report.processes[0].reason for report in reports} == {Reason.PRESSURE}
    run.kernel.pressure_ratio = 0.001
    run.ticks(5)
    assert sum(run.kernel.present()) < sum(before)


def test_no_more_leaves_than_the_rate_allows() -> None:
    run = Run(n_parts=16, rate_mib=1)
    run.kernel.process = replace(run.kernel.process, rss_bytes=16 * GIB)
    run.ticks(11)
    gone = 16 * PART_PAGES - sum(run.kernel.present())
    assert gone * PAGE_BYTES <= 11 * 2 * MIB
    assert gone * PAGE_BYTES >= 20 * MIB


def test_what_will_not_leave_is_left_alone_for_a_while() -> None:
    run = Run(n_parts=2)
    stuck = {START + i * PAGE_BYTES: _STUCK for i in range(PART_PAGES, 2 * PART_PAGES)}
    run.kernel.memories[PID].status_of = stuck
    reports = run.ticks(60)
    assert run.kernel.present() == [PART_PAGES, PART_PAGES]
    reasons = [report.processes[0].reason for report in reports]
    assert Reason.QUARANTINE in reasons[:20]
    assert reasons.count(Reason.QUARANTINE) >= 30
