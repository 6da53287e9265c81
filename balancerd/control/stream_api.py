"""The live view of the control socket: every tick as a server-sent event, for as long as the client stays.

GET /v1/stream?sort=remote|cpu|rss|local|moved&match=TEXT     (400: not understood; 503: too many listen already)
    text/event-stream. The newest tick comes at once, then each as it ends, as an event `tick` whose data is an object:
        schema, missed (ticks that this client was too slow for), age_seconds (since the tick ended, when this was
                sent; those within are of when it was made, once for all), tick (null before the first)
        status      as in GET /v1/status
        nodes       as in GET /v1/nodes
        top         as in GET /v1/top, with that sort and match
        moved       what the tick moved, most bytes first: [{pid, comm (null: gone), policy, reason, target,
                    moved_bytes, from: {node: bytes}, submitted_pages, pages: {status: n}, detail}], the first 100
        moved_left_out   how many more there are
    A comment every 15 s tells that the daemon is there though no tick ended.

`Stream` is a sink behind the state: it publishes the state's view of each tick, which is immutable. Everything else
happens in the thread of whoever listens, so a slow or broken client delays nobody.
"""

import heapq
import json
from collections.abc import Callable
from typing import Final, Protocol

from balancerd.control import machine_api, workload_api
from balancerd.control.api import SCHEMA, Json
from balancerd.control.state import ControlState, View
from balancerd.model.migration import MigrationOutcome
from balancerd.model.report import TickReport
from balancerd.model.sample import PAGE_BYTES
from balancerd.streaming import Broadcast, EventStream, Renderer, Told

EVENT: Final = "tick"

MOST_LISTENERS: Final = 6
"""Each has a thread of the server. Who finds no seat can still poll."""

MOST_MOVES: Final = 100


class TellStatus(Protocol):
    """Answers GET /v1/status, from a view, at monotonic second `now`."""

    def __call__(self, view: View, /, *, now: float) -> Json:
        """Return the document."""
        ...


class Stream:
    """Publishes ticks, and opens streams of them. `now` returns monotonic seconds (Clock.now)."""

    def __init__(
        self,
        state: ControlState,
        *,
        status: TellStatus,
        now: Callable[[], float],
        most_listeners: int = MOST_LISTENERS,
    ) -> None:
        self._state = state
        self._status = status
        self._now = now
        self._broadcast: Broadcast[View] = Broadcast(most_listeners=most_listeners)
        self._rendered: Renderer[View, workload_api.Asked] = Renderer(self._render)

    def emit(self, _report: TickReport) -> None:
        """Tell everyone who listens of the tick that the state was told of just before."""
        self._broadcast.publish(self._state.view())

    def open(self, asked: workload_api.Asked, is_gone: Callable[[], bool]) -> EventStream[View]:
        """Return the body of a response that lasts. Raises FullError."""

        def data(told: Told[View]) -> str:
            at = told.item.told_at
            age_seconds = None if at is None else round(self._now() - at, 6)
            head = json.dumps({"schema": SCHEMA, "missed": told.missed, "age_seconds": age_seconds})
            return f"{head[:-1]}, {self._rendered(told, asked)[1:]}"

        return EventStream(self._broadcast.join(), event=EVENT, data=data, is_gone=is_gone)

    def close(self) -> None:
        """End all streams."""
        self._broadcast.close()

    def _render(self, view: View, asked: workload_api.Asked) -> str:
        now = self._now()
        return json.dumps(
            {
                "tick": None if view.report is None else view.report.number,
                "status": self._status(view, now=now),
                "nodes": machine_api.nodes(view, now=now),
                "top": workload_api.top(view, asked, now=now),
                **_moved(view.report),
            }
        )


def _moved(report: TickReport | None) -> Json:
    outcomes = () if report is None else report.outcomes
    names = {} if report is None else {each.process.id: each.process.comm for each in report.processes}
    most = heapq.nlargest(MOST_MOVES, outcomes, key=lambda outcome: outcome.moved_pages)
    return {
        "moved": [{**_move(outcome), "comm": names.get(outcome.step.process)} for outcome in most],
        "moved_left_out": len(outcomes) - len(most),
    }


def _move(outcome: MigrationOutcome) -> Json:
    return {
        "pid": outcome.step.process.pid,
        "policy": outcome.step.policy,
        "reason": outcome.step.reason.value,
        "target": outcome.step.target,
        "moved_bytes": outcome.moved_pages * PAGE_BYTES,
        "from": {str(node): pages * PAGE_BYTES for node, pages in sorted(outcome.moved_from.items())},
        "submitted_pages": outcome.submitted_pages,
        "pages": {status.value: pages for status, pages in outcome.pages.items()},
        "detail": outcome.detail,
    }
