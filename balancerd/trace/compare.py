"""Where two replays of one trace differ: which process, in which ticks, and what each of them says of it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from balancerd.model.ids import ProcessId
from balancerd.model.report import TickReport
from balancerd.model.steering import SteerKind
from balancerd.trace.replay import ReplayedTick


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """The last word on a process in one tick: what is done, or why nothing is. Two are the same by `what`."""

    what: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """From tick `first` to tick `last`, of `ticks` that differ in the same way, on process number `process`."""

    process: int
    first: int
    last: int
    ticks: int
    one: Said
    other: Said


@dataclass(slots=True)
class Comparison:
    """How often two replays differ. `process_ticks` counts each process in each tick."""

    ticks: int = 0
    different_ticks: int = 0
    process_ticks: int = 0
    different_process_ticks: int = 0


NOTHING = Said(what="nothing: the tick failed", detail="")


def compare(one: Iterable[ReplayedTick], other: Iterable[ReplayedTick], comparison: Comparison) -> Iterator[Difference]:
    """Yield the differences as they end, those that last at the end; run both replays side by side.

    A process on which both say the same in one tick, and something else again later, has two.
    """
    open_: dict[ProcessId, Difference] = {}
    for a, b in zip(one, other, strict=True):
        said, contrary = say(a.report), say(b.report)
        differing = {
            process: (said.get(process, NOTHING), contrary.get(process, NOTHING))
            for process in said | contrary
            if said.get(process, NOTHING).what != contrary.get(process, NOTHING).what
        }
        comparison.ticks += 1
        comparison.different_ticks += bool(differing)
        comparison.process_ticks += len(said | contrary)
        comparison.different_process_ticks += len(differing)
        for process in [process for process in open_ if not _goes_on(open_[process], differing.get(process))]:
            yield open_.pop(process)
        for process, (this, that) in differing.items():
            known = open_.get(process)
            if known is None:
                open_[process] = Difference(
                    process=process.pid, first=a.number, last=a.number, ticks=1, one=this, other=that
                )
            else:
                open_[process] = replace(known, last=a.number, ticks=known.ticks + 1)
    yield from open_.values()


def say(report: TickReport | None) -> dict[ProcessId, Said]:
    """Return the last word on each process of a tick."""
    if report is None:
        return {}
    moves: dict[ProcessId, list[str]] = {}
    for step in report.plan.steps:
        moves.setdefault(step.process, []).append(f"moves to node {step.target}")
    for steer in report.plan.steers:
        if steer.kind is not SteerKind.RELEASE:
            moves.setdefault(steer.process, []).append(f"threads to node {steer.target}")
    for eviction in report.plan.evictions:
        moves.setdefault(eviction.process, []).append("cold" if eviction.cold_only else "evicted")
    return {
        told.process.id: Said(
            what=f"{told.reason.value}: {', '.join(moves[told.process.id])}"
            if told.process.id in moves
            else told.reason.value,
            detail=told.detail,
        )
        for told in report.processes
    }


def _goes_on(known: Difference, now: tuple[Said, Said] | None) -> bool:
    return now is not None and (known.one.what, known.other.what) == (now[0].what, now[1].what)
