"""The work that is one migrate_pages(2): it blocks for as long as the copy takes, so a thread waits for it.

The loop goes on, and nothing can interrupt the call. One at a time, for two would share the machine's bandwidth.
"""

import threading
from collections.abc import Generator
from dataclasses import replace

from balancerd.jobs.ending import DONE, Ending, Pause, cancelled, failed
from balancerd.jobs.means import room_by_node
from balancerd.jobs.moving import Work, find_movable
from balancerd.jobs.record import MoveRequest
from balancerd.jobs.run import Run
from balancerd.model.decision import Reason
from balancerd.model.ids import NodeId, format_id_list
from balancerd.model.migration import WholeMove
from balancerd.model.sample import VmaPlacement, bytes_by_node

POLL_SECONDS = 0.1
TURN_SECONDS = 1.0
"""How often a whole move that is not the first looks whether it is its turn."""


def move_whole(run: Run, request: MoveRequest, busy: threading.Lock) -> Work:
    """Move all that is on the sources to the targets by one call.

    The call knows no mempolicies and no watermarks, so both are asked for before it. `busy` is held while it lasts.
    """
    found = find_movable(run, ignore_mempolicy=request.ignore_mempolicy)
    if isinstance(found, Ending):
        return found
    chosen, held_back = found
    held_bytes = sum(bytes_by_node(held_back).get(node, 0) for node in run.target_of)
    run.account = replace(run.account, held_back_bytes=held_bytes)
    if held_bytes:
        return failed(Reason.MEMPOLICY, f"{held_bytes >> 20} MiB, and migrate_pages(2) moves all or nothing")
    wanted = _wanted(run, chosen)
    run.total_bytes = sum(wanted.values())
    while not busy.acquire(blocking=False):
        if run.should_stop():
            return cancelled()
        yield Pause(seconds=TURN_SECONDS, reason=Reason.CLAIMED)
    try:
        room = room_by_node(run.means(), wanted)
        full = {node for node, wanted_bytes in wanted.items() if wanted_bytes > room[node]}
        if full:
            return failed(Reason.TARGET_FULL, f"not all of it fits on node {format_id_list(full)}")
        answer = yield from _call(run)
    finally:
        busy.release()
    return _judge(run, answer)


def _call(run: Run) -> Generator[Pause, None, WholeMove]:
    """Have a thread make the call, and wait for its answer. Raises what the call raised."""
    kernel = run.means().kernel
    answers: list[WholeMove | Exception] = []

    def call() -> None:
        try:
            answers.append(kernel.migrate_whole(run.process, run.target_of))
        except Exception as error:  # noqa: BLE001 - handed on to the loop, which ends the job with it
            answers.append(error)

    threading.Thread(target=call, name="whole-move", daemon=True).start()
    while not answers:
        yield Pause(seconds=POLL_SECONDS)
    answer = answers[0]
    if isinstance(answer, Exception):
        raise answer
    return answer


def _judge(run: Run, answer: WholeMove) -> Ending:
    run.whole = answer
    run.done_bytes = sum(max(0, answer.before_bytes.get(n, 0) - answer.after_bytes.get(n, 0)) for n in run.target_of)
    if answer.stopped_by is not None:
        return failed(answer.stopped_by, answer.detail)
    if answer.not_moved_pages:
        run.notes.append(f"{answer.not_moved_pages} pages could not be moved")
    return DONE


def _wanted(run: Run, chosen: tuple[VmaPlacement, ...]) -> dict[NodeId, int]:
    """Return how much will come to each target, as far as a sample tells."""
    wanted: dict[NodeId, int] = {}
    for node, held_bytes in bytes_by_node(chosen).items():
        if node in run.target_of:
            target = run.target_of[node]
            wanted[target] = wanted.get(target, 0) + held_bytes
    return wanted
