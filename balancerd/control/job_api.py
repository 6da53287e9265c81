"""The answers about jobs and moves: pure functions from records to plain dicts.

POST /v1/jobs               (202; root and the daemon's user only; 400: not understood, or a node without memory;
                             404: no such process or move; 409: the process has a job already, or too many wait)
    takes a JSON object, "kind" and what belongs to it:
        move    pid, to ("2-3"), and if need be: from ("0-1"; null: every other node), move_all, ignore_mempolicy,
                whole (one migrate_pages(2); false like the others unless given)
        evict   pid, and if need be: cold_only
        undo    move (the id of a move)
    schema, job: as below

GET /v1/jobs                schema, jobs: [job], oldest first; the last 64 that ended are remembered
GET /v1/jobs/ID             schema, job    (404: no such job)
POST /v1/jobs/ID/cancel     schema, job    (202; root and the daemon's user only): it ends after the call at hand
    job     {id, kind, and what was asked for: to, from, move_all, ignore_mempolicy, whole | cold_only | undone_move,
            pid, start_ticks, comm, target_of: {node: node}, state ("queued", "running", "done", "cancelled", "failed"),
            cancel_requested, reason, reason_text (why not all was done, or null), detail, waiting_for (a reason or
            null), move (the id for undo, or null), age_seconds, seconds (running; null before),
            total_bytes (an estimate; null before), done_bytes (dealt with, moved or not), rate_bytes_per_second,
            eta_seconds (null when not known),
            looked_pages = on_target_pages + the sum of passed_over + submitted_pages = the sum of pages {status: n},
            moved_from {node: pages}, moved_bytes, retried_pages, held_back_bytes (for their mempolicy),
            verified: null or {asked_pages, on_target_pages, elsewhere_pages, absent_pages, unknown_pages},
            calls, longest_call_seconds, call_seconds, stalls, throttled_seconds {cause: n},
            eviction: null or {absent_pages, other_pages, advised_pages, evicted_pages, kept_pages},
            whole_move: null or {not_moved_pages, seconds, before_bytes, after_bytes}}

GET /v1/moves
    schema, moves: newest first: [{id, pid, start_ticks, policy, reason, reason_text, to ("2-3"), from {node: bytes},
            moved_bytes, undoable_bytes (of which is recorded where they came from), pages {status: n}, going_on,
            age_seconds (since it began)}]
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict

from balancerd.control.api import SCHEMA, Json, rounded_seconds
from balancerd.engine.moves import Move
from balancerd.jobs.record import Account, EvictRequest, Job, JobRequest, MoveRequest
from balancerd.model.decision import REASON_TEXT
from balancerd.model.ids import NodeId, format_id_list
from balancerd.model.migration import WholeMove
from balancerd.model.sample import PAGE_BYTES


def job(told: Job, *, now: float) -> Json:
    """Answer GET /v1/jobs/ID, POST /v1/jobs and POST /v1/jobs/ID/cancel."""
    return {"schema": SCHEMA, "job": _job(told, now)}


def jobs(told: Iterable[Job], *, now: float) -> Json:
    """Answer GET /v1/jobs."""
    return {"schema": SCHEMA, "jobs": [_job(each, now) for each in told]}


def moves(told: Iterable[Move], *, now: float) -> Json:
    """Answer GET /v1/moves."""
    newest_first = sorted(told, key=lambda move: -move.id)
    return {"schema": SCHEMA, "moves": [_move(each, now) for each in newest_first]}


def _job(told: Job, now: float) -> Json:
    seconds, rate, eta = told.seconds(now), told.rate_bytes_per_second(now), told.eta_seconds(now)
    return {
        "id": told.id,
        **_request(told.request),
        "pid": told.process.pid,
        "start_ticks": told.process.start_ticks,
        "comm": told.comm,
        "target_of": {str(source): target for source, target in sorted(told.target_of.items())},
        "state": told.state.value,
        "cancel_requested": told.cancel_requested,
        "reason": None if told.reason is None else told.reason.value,
        "reason_text": None if told.reason is None else REASON_TEXT[told.reason],
        "detail": told.detail,
        "waiting_for": None if told.waiting_for is None else told.waiting_for.value,
        "move": told.move_id,
        "age_seconds": rounded_seconds(now - told.submitted_at),
        "seconds": None if seconds is None else rounded_seconds(seconds),
        "total_bytes": told.total_bytes,
        "done_bytes": told.done_bytes,
        "rate_bytes_per_second": None if rate is None else round(rate),
        "eta_seconds": None if eta is None else rounded_seconds(eta),
        **_account(told.account),
        "eviction": _eviction(told.account) if isinstance(told.request, EvictRequest) else None,
        "whole_move": None if told.whole is None else _whole(told.whole),
    }


def _request(request: JobRequest) -> Json:
    if isinstance(request, MoveRequest):
        return {
            "kind": request.kind,
            "to": format_id_list(request.targets),
            "from": None if request.sources is None else format_id_list(request.sources),
            "move_all": request.move_all,
            "ignore_mempolicy": request.ignore_mempolicy,
            "whole": request.whole,
        }
    if isinstance(request, EvictRequest):
        return {"kind": request.kind, "cold_only": request.cold_only}
    return {"kind": request.kind, "undone_move": request.move_id}


def _account(account: Account) -> Json:
    return {
        "looked_pages": account.looked_pages,
        "on_target_pages": account.on_target_pages,
        "passed_over": {status.value: pages for status, pages in account.passed_over.items()},
        "submitted_pages": account.submitted_pages,
        "pages": {status.value: pages for status, pages in account.pages.items()},
        "moved_from": _by_node(account.moved_from),
        "moved_bytes": account.moved_bytes,
        "retried_pages": account.retried_pages,
        "verified": None if account.verified is None else asdict(account.verified),
        "held_back_bytes": account.held_back_bytes,
        "calls": account.calls,
        "longest_call_seconds": account.longest_call_seconds,
        "call_seconds": rounded_seconds(account.call_seconds),
        "stalls": account.stalls,
        "throttled_seconds": {cause: rounded_seconds(seconds) for cause, seconds in account.throttled_seconds.items()},
    }


def _eviction(account: Account) -> Json:
    return {
        "absent_pages": account.absent_pages,
        "other_pages": account.other_pages,
        "advised_pages": account.advised_pages,
        "evicted_pages": account.evicted_pages,
        "kept_pages": account.kept_pages,
    }


def _whole(whole: WholeMove) -> Json:
    return {
        "not_moved_pages": whole.not_moved_pages,
        "seconds": rounded_seconds(whole.seconds),
        "before_bytes": _by_node(whole.before_bytes),
        "after_bytes": _by_node(whole.after_bytes),
    }


def _by_node(values: Mapping[NodeId, int]) -> dict[str, int]:
    return {str(node): value for node, value in sorted(values.items())}


def _move(move: Move, now: float) -> Json:
    targets = {run.target for run in move.runs} or {move.target}
    return {
        "id": move.id,
        "pid": move.process.pid,
        "start_ticks": move.process.start_ticks,
        "policy": move.policy,
        "reason": move.reason.value,
        "reason_text": REASON_TEXT[move.reason],
        "to": format_id_list(targets),
        "from": {str(node): pages * PAGE_BYTES for node, pages in sorted(move.moved_from.items())},
        "moved_bytes": move.moved_bytes,
        "undoable_bytes": sum(run.end - run.start for run in move.runs),
        "pages": {status.value: pages for status, pages in move.pages.items()},
        "going_on": move.ended_at is None,
        "age_seconds": rounded_seconds(now - move.started_at),
    }
