"""The works that change the node of memory: a paced move, and undo. Each yields after every slice.

Owns what is asked for and what is left out. How a slice is allowed is the business of `means`; what became of its
pages, that of the kernel.
"""

from collections.abc import Generator, Iterable, Mapping
from dataclasses import replace
from typing import TypeAlias

from balancerd.engine.movable import movable
from balancerd.jobs.ending import DONE, Ending, Pause, cancelled, failed
from balancerd.jobs.means import REFILL_SECONDS, allowance, outside_cpuset
from balancerd.jobs.record import JobState, MoveRequest, UndoRequest
from balancerd.jobs.run import Run
from balancerd.model.decision import Reason
from balancerd.model.ids import NodeId, format_id_list
from balancerd.model.migration import MigrationStep, MovedRun, Range
from balancerd.model.page_status import PageStatus
from balancerd.model.sample import (
    PAGE_BYTES,
    PlacementSample,
    ProcessSample,
    SampleRequest,
    VmaPlacement,
    bytes_by_node,
)

POLICY = "command"
"""What metrics, logs and histories call an operator, in the place of a policy."""

SHORTEST_SLICE_SECONDS = 0.02

Work: TypeAlias = Generator[Pause, None, Ending]
"""A job at work: it runs one slice at a time, yields a Pause after each, and returns how it ended."""


def move(run: Run, request: MoveRequest) -> Work:
    """Move what is on the sources to the targets, in slices."""
    found = find_movable(run, ignore_mempolicy=request.ignore_mempolicy)
    if isinstance(found, Ending):
        return found
    chosen, held_back = found
    run.account = replace(run.account, held_back_bytes=_bytes_on(held_back, run.target_of))
    run.total_bytes = _bytes_on(chosen, run.target_of)
    if not chosen:
        return failed(Reason.MEMPOLICY if held_back else Reason.NOTHING_PRESENT)
    run.move_id = _open(run, next(iter(run.target_of.values())))
    try:
        return (yield from _walk(run, ranges_of(chosen), run.target_of, move_all=request.move_all))
    finally:
        _close(run, f"moved to node {format_id_list(set(run.target_of.values()))} by an operator, move {run.move_id}")


def undo(run: Run, request: UndoRequest) -> Work:
    """Put the pages of a recorded move back where they came from, as far as they are where it left them."""
    recorded = run.means().memory.moves.find(request.move_id)
    if recorded is None:
        return Ending(state=JobState.FAILED, detail=f"nothing is known of move {request.move_id} any more")
    process = run.means().machine.look(run.process.pid)
    if process is None or process.id != run.process:
        return failed(Reason.EXITED)
    groups: dict[tuple[NodeId, NodeId], list[MovedRun]] = {}
    for moved in recorded.runs:
        groups.setdefault((moved.source, moved.target), []).append(moved)
    if not groups:
        return failed(Reason.NOTHING_PRESENT, f"move {request.move_id} has moved nothing that is recorded")
    run.total_bytes = sum(moved.end - moved.start for moved in recorded.runs)
    if recorded.lost_pages:
        run.notes.append(f"where {recorded.lost_pages} more pages came from was not recorded")
    run.move_id = _open(run, next(iter(groups))[0])
    total = DONE
    try:
        for (source, target), runs in sorted(groups.items()):
            ending = outside_cpuset(process, (source,))
            if ending is None:
                ending = yield from _walk(run, merged(runs), {target: source}, move_all=recorded.move_all)
            if ending.state is not JobState.DONE:
                total = ending
            if ending.reason not in {None, Reason.TARGET_FULL, Reason.OUTSIDE_CPUSET}:
                break
        return total
    finally:
        _close(run, f"move {request.move_id} was undone by an operator")


def examine(run: Run) -> tuple[ProcessSample, PlacementSample] | Ending:
    """Look at the process and its memory, mempolicies included; or say why that cannot be."""
    means = run.means()
    process = means.machine.look(run.process.pid)
    if process is None or process.id != run.process:
        return failed(Reason.EXITED)
    request = SampleRequest(process=process.id, rss_bytes=process.rss_bytes, read_mempolicies=True)
    sampling = means.kernel.sample((request,))
    if not sampling.placements:
        skip = next(iter(sampling.missed), None)
        return failed(Reason.NOTHING_PRESENT) if skip is None else failed(skip.reason, skip.detail)
    return process, sampling.placements[0]


def find_movable(
    run: Run, *, ignore_mempolicy: bool
) -> tuple[tuple[VmaPlacement, ...], tuple[VmaPlacement, ...]] | Ending:
    """Return what choose() does of a process that may have memory on the targets; or say why that cannot be."""
    found = examine(run)
    if isinstance(found, Ending):
        return found
    process, placement = found
    return outside_cpuset(process, run.target_of.values()) or choose(placement, ignore_mempolicy=ignore_mempolicy)


def choose(
    placement: PlacementSample, *, ignore_mempolicy: bool
) -> tuple[tuple[VmaPlacement, ...], tuple[VmaPlacement, ...]]:
    """Return the mappings that may move, and those held back because of their mempolicy or for not being known."""
    chosen: list[VmaPlacement] = []
    held_back: list[VmaPlacement] = []
    for placed in sorted(movable(placement), key=lambda p: p.vma.start):
        policy = placed.vma.mempolicy
        free = ignore_mempolicy or (policy is not None and not policy.explicit)
        (chosen if free and placed.vma.page_bytes is not None else held_back).append(placed)
    return tuple(chosen), tuple(held_back)


def ranges_of(chosen: Iterable[VmaPlacement]) -> tuple[Range, ...]:
    """Return the whole mappings as ranges, ascending."""
    return tuple(
        Range(start=placed.vma.start, end=placed.vma.end, page_bytes=placed.vma.page_bytes or PAGE_BYTES)
        for placed in sorted(chosen, key=lambda p: p.vma.start)
    )


def merged(runs: Iterable[MovedRun]) -> tuple[Range, ...]:
    """Return runs as ranges, ascending, neighbours of one page size joined and overlaps removed."""
    ranges: list[Range] = []
    for moved in sorted(runs, key=lambda r: (r.start, r.end)):
        last = ranges[-1] if ranges else None
        if last is not None and last.end >= moved.start and last.page_bytes == moved.page_bytes:
            ranges[-1] = replace(last, end=max(last.end, moved.end))
        elif last is None or moved.end > last.end:
            start = moved.start if last is None else max(moved.start, last.end)
            ranges.append(Range(start=start, end=moved.end, page_bytes=moved.page_bytes))
    return tuple(ranges)


def _walk(run: Run, ranges: tuple[Range, ...], pairs: Mapping[NodeId, NodeId], *, move_all: bool) -> Work:
    """Move through the ranges once. A target that fills up is left out from then on."""
    resume_at, is_done = 0, False
    full: set[NodeId] = set()
    while not is_done:
        if run.should_stop():
            return cancelled()
        means = run.means()
        going = {source: target for source, target in pairs.items() if target not in full}
        if not going:
            break
        allowed = allowance(means, run.process, going)
        if allowed.full:
            full |= allowed.full
        elif not allowed.budget_bytes:
            yield Pause(seconds=REFILL_SECONDS, reason=allowed.reason)
        else:
            stay = {target: target for target in pairs.values() if target not in pairs}
            step = MigrationStep(
                policy=POLICY,
                process=run.process,
                target=next(iter(going.values())),
                ranges=ranges,
                resume_at=resume_at,
                budget_bytes=allowed.budget_bytes,
                budget_seconds=max(run.deadline - means.clock.now(), SHORTEST_SLICE_SECONDS),
                reason=Reason.COMMAND,
                target_of={**stay, **going},
                move_all=move_all,
                move_id=run.move_id or 0,
            )
            outcome = means.kernel.migrate(step, run.should_stop)
            means.memory.record_command(outcome, means.clock.now())
            run.note_migration(outcome)
            run.done_bytes = _done_bytes(run)
            is_done = outcome.resume_at is None
            got_on = is_done or bool(outcome.submitted_pages) or (outcome.resume_at or 0) > resume_at
            follows = run.after(outcome.stopped_by, outcome.detail, got_on=got_on)
            resume_at = outcome.resume_at or resume_at
            if isinstance(follows, Ending):
                return follows
            yield follows
    if full:
        return failed(Reason.TARGET_FULL, f"no room left on node {format_id_list(full)}")
    return DONE


def _done_bytes(run: Run) -> int:
    account = run.account
    if isinstance(run.request, UndoRequest):
        return account.looked_pages * PAGE_BYTES
    return (account.submitted_pages + account.passed_over.get(PageStatus.NO_HUGE_PAGE, 0)) * PAGE_BYTES


def _bytes_on(vmas: Iterable[VmaPlacement], nodes: Iterable[NodeId]) -> int:
    held = bytes_by_node(vmas)
    return sum(held.get(node, 0) for node in nodes)


def _open(run: Run, target: NodeId) -> int:
    means = run.means()
    return means.memory.moves.open(run.process, POLICY, target, Reason.COMMAND, means.clock.now())


def _close(run: Run, detail: str) -> None:
    """End the record, and keep policies from moving at once what an operator has just placed."""
    means = run.means()
    now = means.clock.now()
    if run.move_id is not None:
        means.memory.moves.end(run.move_id, now)
    if run.account.moved_bytes:
        means.memory.ledger.rest(run.process, detail, now)
