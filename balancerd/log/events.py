"""Events of the chronicle as log lines, with what the journal has fields for. Pure; it must not know the logger."""

from collections.abc import Mapping
from typing import Any, Final

from balancerd.model.event import Event, EventKind

PHRASES: Final[Mapping[EventKind, str]] = {
    EventKind.DECISION: "decision",
    EventKind.HELD: "decision held",
    EventKind.MOVE: "memory moved",
    EventKind.EVICTION: "memory evicted",
    EventKind.THREADS: "threads moved",
    EventKind.RESULT: "move judged",
}


def of_event(event: Event) -> dict[str, Any]:
    """Return the keywords of an event's line; what is not known, or does not apply, is left out."""
    told = {
        "pid": event.process.pid,
        "comm": event.comm,
        "workload": event.workload,
        "policy": event.policy,
        "decision": event.decision,
        "source": list(event.bytes_by_node) or None,
        "target": event.target,
        "bytes": event.amount_bytes,
        "reason": event.reason,
        "move": event.move,
        "counts": dict(event.counts) or None,
        "detail": event.detail or None,
    }
    return {key: value for key, value in told.items() if value is not None}
