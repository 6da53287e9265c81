"""Ticks that wait while nothing changes: how few there are, and how little it makes of a difference."""

import itertools

import pytest

from balancerd.simulation import loading
from balancerd.simulation.run import JUST_BEFORE_SECONDS, run_engine, run_without
from balancerd.simulation.scenario import GroupSection, MachineSection, PhaseSection, Scenario, SchedulerKind
from tests.simulations import make_means, under
from tests.unit.simulation.machines import GIB

TICK = 2.0


def quietly(scenario: Scenario, longest_seconds: float = 1800.0) -> Scenario:
    return scenario.model_copy(update={"quiet_tick_seconds": longest_seconds})


def ticks_of(scenario: Scenario) -> list[float]:
    """When each tick began."""
    found: list[float] = []
    run_engine(scenario, 1, make_means(), lambda report: found.append(report.survey.taken_at))
    return found


def one_phase_at(seconds: float, duration_seconds: float, *, longest_seconds: float | None) -> Scenario:
    """One process that begins to work at about that time; when, is known by trying."""
    phases = (
        PhaseSection(lasts_seconds=seconds, cpu_cores=0.5),
        PhaseSection(lasts_seconds=366 * 86_400.0, cpu_cores=1.0),
    )
    return Scenario(
        duration_seconds=duration_seconds,
        machine=MachineSection(nodes=2, cpus=4, memory_bytes=8 * GIB),
        groups=(GroupSection(name="one", memory_bytes=GIB, phases=phases),),
        quiet_tick_seconds=longest_seconds,
    )


def test_while_nothing_changes_each_tick_waits_for_as_long_as_that_and_no_longer_than_is_allowed() -> None:
    began = ticks_of(quietly(under(loading.load("single-misplaced"), "sticky", 3600.0), 600.0))
    waits = [b - a for a, b in itertools.pairwise(began)]
    assert len(began) < 40
    assert max(waits) == pytest.approx(600.0)
    calm = max(n for n, wait in enumerate(waits) if wait < 1.1 * TICK)
    assert all(later >= earlier - 1e-6 for earlier, later in itertools.pairwise(waits[calm:-1]))
    assert all(later <= 2.1 * earlier for earlier, later in itertools.pairwise(waits[calm:]))


def test_a_tick_comes_just_before_anything_happens_and_the_next_ones_at_their_interval() -> None:
    scenario = one_phase_at(600.0, 900.0, longest_seconds=None)
    busy = {  # the first tick of all that sees it at work
        round(report_at, 3) for report_at, cores in _cores_at(scenario) if cores is not None and cores > 0.75
    }
    changed_at = min(busy) - TICK / 2  # within a second
    began = ticks_of(quietly(scenario))
    before = max(at for at in began if at < changed_at - TICK)
    close = [at for at in began if abs(at - changed_at) <= TICK]
    assert changed_at - before > 5 * TICK
    assert len(close) >= 1
    after = [at for at in began if at >= close[0]][:3]
    assert [b - a for a, b in itertools.pairwise(after)] == pytest.approx([TICK, TICK], abs=0.01)
    assert close[0] <= changed_at + TICK / 2 + JUST_BEFORE_SECONDS


def _cores_at(scenario: Scenario) -> list[tuple[float, float | None]]:
    found: list[tuple[float, float | None]] = []
    run_engine(
        scenario,
        1,
        make_means(),
        lambda report: found.extend((report.survey.taken_at, p.cpu_cores) for p in report.survey.processes),
    )
    return found


@pytest.mark.parametrize(
    ("name", "kind", "seconds"), [("crossed", "balancing", 1200.0), ("wander-1200", "sticky", 1800.0)]
)
def test_what_it_costs_is_nearly_the_same(name: str, kind: SchedulerKind, seconds: float) -> None:
    scenario = under(loading.load(name), kind, seconds)
    nothing = run_without(scenario, 1).accounts.lost_seconds
    often, seldom = (run_engine(each, 1, make_means()) for each in (scenario, quietly(scenario)))
    assert seldom.ticks < 0.5 * often.ticks
    assert seldom.accounts.lost_seconds == pytest.approx(often.accounts.lost_seconds, abs=0.02 * nothing)
    assert seldom.accounts.moved_bytes == pytest.approx(often.accounts.moved_bytes, rel=0.25)


def test_under_a_scheduler_by_chance_something_may_happen_at_any_time() -> None:
    scenario = under(loading.load("crossed"), "random", 120.0)
    assert run_engine(quietly(scenario), 1, make_means()) == run_engine(scenario, 1, make_means())


def test_the_month_of_a_fleet_is_one_of_ten_thousand_processes() -> None:
    scenario = loading.load("fleet-month")
    assert sum(group.count for group in scenario.groups) >= 10_000
    assert scenario.duration_seconds == 30 * 86_400.0
    assert scenario.quiet_tick_seconds is not None
    small = tuple(group for group in scenario.groups if group.name in {"stray", "job"})
    day = scenario.model_copy(update={"groups": small, "duration_seconds": 43_200.0})
    run = run_engine(day, 1, make_means())
    assert run.ticks < 200
    assert run.accounts.lost_seconds < 0.1 * run_without(day, 1).accounts.lost_seconds
