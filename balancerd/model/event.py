"""What is worth remembering of a tick, one record for each thing that was decided or done, numbered for good."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from balancerd.model.ids import NodeId, ProcessId


class EventKind(enum.StrEnum):
    """What an event tells of: a word in the history's file, in its answers and in the journal."""

    DECISION = "decision"
    """A policy wants something that it did not want a tick before."""
    HELD = "held"
    """What it wants was turned down, or only observed, for another reason than a tick before."""
    MOVE = "move"
    """Pages were submitted to be moved, whatever became of them."""
    EVICTION = "eviction"
    """Memory was given back, or marked as cold."""
    THREADS = "threads"
    """Threads were moved to their memory, or let go."""
    RESULT = "result"
    """What a move came to, when its process was looked at after it."""


class Action(enum.StrEnum):
    """What is wanted or done."""

    MIGRATE = "migrate"
    EVICT = "evict"
    STEER = "steer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that was decided or done in tick number `tick`.

    `id` counts up and is never used again. `decision` is the id of the event of kind DECISION that this one belongs
    to, its own for such a one, None where no policy decided: an operator's command. `bytes_by_node` is memory by the
    node that holds it, or left: of a decision what lies elsewhere, of a move what moved. `amount_bytes` is what is
    wanted, or what was done; None of threads. `counts` are pages by status, of threads threads by fate. `reason` is a
    Reason, of a result a MoveResult. `comm` and `workload` are None when the survey does not list the process.
    """

    id: int
    kind: EventKind
    tick: int
    decision: int | None
    policy: str
    process: ProcessId
    comm: str | None
    workload: str | None
    action: Action
    bytes_by_node: Mapping[NodeId, int] = field(default_factory=dict)
    target: NodeId | None = None
    amount_bytes: int | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    reason: str
    detail: str = ""
    move: int | None = None
    """The move that can be undone while this daemon runs; None for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryFigures:
    """How the keeping of events goes: totals since the daemon started, and what is kept.

    `rows` and `kept_bytes` are None as long as nobody knows; `trouble` says why nothing is being written at the moment.
    """

    written_events: int = 0
    lost_events: Mapping[str, int] = field(default_factory=dict)
    """By why: "queue" when they came faster than they were written, "limit" beyond what a tick may leave, "disk"."""
    errors: Mapping[str, int] = field(default_factory=dict)
    """By what: "corrupt", "full", "read-only", "busy", "other"."""
    rows: int | None = None
    kept_bytes: int | None = None
    trouble: str | None = None
