"""Yielding to other managers, machine-wide and by process; and what is told of every manager."""

from dataclasses import replace

import pytest

from balancerd.engine.budgets import Budgets
from balancerd.engine.ledger import Ledger
from balancerd.engine.managers import tell_managers
from balancerd.engine.plan import PlanLimits, make_plan
from balancerd.engine.select import Criteria, reason_to_skip
from balancerd.model.decision import Decision, Eviction, Reason
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.manager import MACHINE_WIDE, MANAGER_TEXT, REMEDY, Manager, ManagerFinding
from balancerd.model.report import TickReport
from balancerd.model.sample import Mempolicy, ProcessSample
from tests.unit.fakes import MIB, make_placement, make_process, make_rates, make_snapshot, make_survey
from tests.unit.reports import a_placement, a_process, a_process_report, a_report

LIMITS = PlanLimits(budget_seconds=1.0, watermark_ratio=0.02)
DEFAULT = frozenset(Manager) - {Manager.KERNEL_BALANCING, Manager.AFFINITY, Manager.MEMPOLICY}
PID = ProcessId(100, 1)
MOVE = Decision(
    policy="home", process=PID, target=NodeId(0), misplaced_bytes=256 * MIB, gain_cores=0.1, cost_seconds=1.0
)
EVICT = Eviction(policy="trim", process=PID, evict_bytes=64 * MIB)


def rejections(
    wanted: Decision | Eviction, *findings: ManagerFinding, yield_to: frozenset[Manager] = DEFAULT
) -> list[tuple[Reason, str]]:
    survey = replace(make_survey(make_process()), managers=findings)
    snapshot = make_snapshot(survey, make_placement({2: 256}))
    limits = replace(LIMITS, yield_to=yield_to)
    plan = make_plan(snapshot, [wanted], Ledger(60.0), Budgets(make_rates()), limits).plan
    assert len(plan.steps) + len(plan.evictions) + len(plan.rejected) == 1
    return [(skip.reason, skip.detail) for skip in plan.rejected]


def finding(manager: Manager, detail: str = "running with pid 7", *, active: bool = True) -> ManagerFinding:
    return ManagerFinding(manager=manager, active=active, detail=detail)


@pytest.mark.parametrize("wanted", [MOVE, EVICT])
@pytest.mark.parametrize("manager", sorted(MACHINE_WIDE))
def test_while_a_machine_wide_manager_is_at_work_nothing_is_done_unless_nobody_yields_to_it(
    wanted: Decision | Eviction, manager: Manager
) -> None:
    other_manager = [(Reason.OTHER_MANAGER, f"{manager.value}: running with pid 7")]
    assert rejections(wanted, finding(manager), yield_to=frozenset({manager})) == other_manager
    assert rejections(wanted, finding(manager), yield_to=frozenset(Manager) - {manager}) == []
    assert rejections(wanted, finding(manager, active=False), yield_to=frozenset({manager})) == []


@pytest.mark.parametrize("manager", sorted(set(Manager) - MACHINE_WIDE))
def test_a_manager_of_single_processes_stops_nobody_else(manager: Manager) -> None:
    assert rejections(MOVE, finding(manager), yield_to=frozenset(Manager)) == []


def test_all_that_are_at_work_are_named() -> None:
    told = "numad: running with pid 7; damos: kdamond 0: pageout"
    found = (finding(Manager.NUMAD), finding(Manager.DAMOS, "kdamond 0: pageout"))
    assert rejections(MOVE, *found) == [(Reason.OTHER_MANAGER, told)]


@pytest.mark.parametrize(
    ("manager", "yield_to", "reason"),
    [
        (None, DEFAULT, None),
        (Manager.LIBVIRT, DEFAULT, Reason.MANAGED),
        (Manager.LIBVIRT, frozenset(), None),
        (Manager.AFFINITY, DEFAULT, None),
        (Manager.AFFINITY, DEFAULT | {Manager.AFFINITY}, Reason.MANAGED),
    ],
)
def test_a_process_that_somebody_placed_is_left_alone_and_told_how(
    manager: Manager | None, yield_to: frozenset[Manager], reason: Reason | None
) -> None:
    criteria = Criteria(min_rss_bytes=64 * MIB, min_cpu_cores=0.05, min_age_seconds=30.0, own_pid=7, yield_to=yield_to)
    process = make_process(manager=manager, manager_detail="guest web: libvirt pins its virtual CPUs: <vcpupin> 2")
    skip = reason_to_skip(process, criteria)
    assert (None if skip is None else skip.reason) == reason
    if skip is not None:
        assert manager is not None
        assert skip.detail == f"{manager.value}: guest web: libvirt pins its virtual CPUs: <vcpupin> 2"


def report_of(*processes: ProcessSample, managers: tuple[ManagerFinding, ...] = ()) -> TickReport:
    report = a_report(processes=tuple(map(a_process_report, processes)))
    return replace(report, survey=replace(report.survey, managers=managers))


def test_every_manager_is_told_of_in_its_order_though_nothing_was_found() -> None:
    told = tell_managers(report_of())
    assert [each.manager for each in told] == list(Manager)
    assert not any(each.active for each in told)
    assert {each.manager for each in told if each.held_processes is None} == MACHINE_WIDE


def test_processes_are_counted_by_who_holds_them_and_one_is_enough_to_be_at_work() -> None:
    placed = (
        replace(a_process(1), manager=Manager.LIBVIRT),
        replace(a_process(2), manager=Manager.LIBVIRT),
        replace(a_process(3), manager=Manager.AFFINITY),
        a_process(4),
    )
    hidden = ManagerFinding(manager=Manager.LIBVIRT, active=False, unreadable="/run/libvirt/qemu/web.xml")
    told = {each.manager: each for each in tell_managers(report_of(*placed, managers=(hidden,)))}
    assert (told[Manager.LIBVIRT].active, told[Manager.LIBVIRT].held_processes) == (True, 2)
    assert told[Manager.LIBVIRT].unreadable == "/run/libvirt/qemu/web.xml"
    assert told[Manager.LIBVIRT].fix == REMEDY[Manager.LIBVIRT]
    assert (told[Manager.AFFINITY].active, told[Manager.AFFINITY].held_processes) == (True, 1)
    assert (told[Manager.NUMA_POLICY].active, told[Manager.NUMA_POLICY].held_processes) == (False, 0)


@pytest.mark.parametrize(
    ("mempolicy", "held"),
    [
        (None, 0),
        (Mempolicy(mode="default"), 0),
        (Mempolicy(mode="local"), 0),
        (Mempolicy(mode="interleave", nodes=frozenset({NodeId(0)})), 1),
    ],
)
def test_a_process_counts_for_its_mempolicies_beside_who_else_holds_it(mempolicy: Mempolicy | None, held: int) -> None:
    process = replace(a_process(), manager=Manager.AFFINITY)
    placed = a_process_report(process, placement=a_placement(process.id, mempolicy=mempolicy))
    told = {each.manager: each for each in tell_managers(a_report(processes=(placed,)))}
    assert told[Manager.MEMPOLICY].held_processes == held
    assert told[Manager.MEMPOLICY].active == bool(held)
    assert told[Manager.AFFINITY].held_processes == 1


def test_of_every_manager_there_is_a_text_and_a_remedy() -> None:
    assert set(MANAGER_TEXT) == set(REMEDY) == set(Manager)
