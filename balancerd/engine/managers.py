"""Who else is at work, told of every manager: what the survey found, and what this tick's processes show."""

from collections import Counter
from collections.abc import Iterable

from balancerd.model.manager import MACHINE_WIDE, REMEDY, Manager, ManagerFinding
from balancerd.model.report import ProcessReport, TickReport


def tell_managers(report: TickReport) -> tuple[ManagerFinding, ...]:
    """Return one finding for every manager, in their own order.

    One that is not machine-wide is at work, too, when it holds any of the processes that were looked at; each process
    is held by one at most, and beside that may have mempolicies. Those are known where numa_maps was read.
    """
    found = {finding.manager: finding for finding in report.survey.managers}
    held = count_held(report.processes)
    return tuple(
        _tell(found.get(manager), manager, None if manager in MACHINE_WIDE else held[manager]) for manager in Manager
    )


def count_held(reports: Iterable[ProcessReport]) -> Counter[Manager]:
    """Return how many processes each manager holds."""
    counts: Counter[Manager] = Counter()
    for report in reports:
        if report.process.manager is not None:
            counts[report.process.manager] += 1
        if has_mempolicy(report):
            counts[Manager.MEMPOLICY] += 1
    return counts


def has_mempolicy(report: ProcessReport) -> bool:
    """Return whether any mapping of a process is known to have a mempolicy that somebody chose."""
    placement = report.placement
    if placement is None or placement.mempolicies_at is None:
        return False
    return any(each.vma.mempolicy is not None and each.vma.mempolicy.explicit for each in placement.vmas)


def _tell(finding: ManagerFinding | None, manager: Manager, held: int | None) -> ManagerFinding:
    active = bool(held) or (finding is not None and finding.active)
    return ManagerFinding(
        manager=manager,
        active=active,
        detail="" if finding is None else finding.detail,
        pids=() if finding is None else finding.pids,
        fix=REMEDY[manager] if active else None,
        held_processes=held,
        unreadable=None if finding is None else finding.unreadable,
    )
