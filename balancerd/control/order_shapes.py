"""The shapes of what the control socket answers to those who want something done: jobs, switches, logs, recordings.

The rules of told_shapes hold here, too. It must not know paths or commands.
"""

from typing import Final

from balancerd.control.api import SCHEMA
from balancerd.control.shapes import by, each, maybe, of, one_of
from balancerd.control.told_shapes import MODE, PAUSE

JOB: Final = {
    **of("id:int pid:int start_ticks:int comm:str"),
    "kind": one_of("move", "evict", "undo"),
    **of("to?:str from?:str? move_all?:bool ignore_mempolicy?:bool whole?:bool cold_only?:bool undone_move?:int"),
    "target_of": by("int"),
    "state": one_of("queued", "running", "done", "cancelled", "failed"),
    **of(
        "cancel_requested:bool reason:str? reason_text:str? detail:str waiting_for:str? move:int? "
        "age_seconds:num seconds:num? total_bytes:int? done_bytes:int rate_bytes_per_second:num? "
        "eta_seconds:num? looked_pages:int on_target_pages:int submitted_pages:int"
    ),
    "passed_over": by("int"),
    "pages": by("int"),
    "moved_from": by("int"),
    **of("moved_bytes:int retried_pages:int held_back_bytes:int"),
    "verified": maybe(
        {
            **of("asked_pages:int on_target_pages:int elsewhere_pages:int absent_pages:int"),
            "unknown_pages": "int",
        }
    ),
    **of("calls:int longest_call_seconds:num? call_seconds:num stalls:int"),
    "throttled_seconds": by("num"),
    "eviction": maybe(
        {
            **of("absent_pages:int other_pages:int advised_pages:int evicted_pages:int"),
            "kept_pages": "int",
        }
    ),
    "whole_move": maybe(
        {"not_moved_pages": "int", "seconds": "num", "before_bytes": by("int"), "after_bytes": by("int")}
    ),
}

ONE_JOB: Final = {"schema": one_of(SCHEMA), "job": JOB}

JOBS: Final = {"schema": one_of(SCHEMA), "jobs": each(JOB)}

MOVES: Final = {
    "schema": one_of(SCHEMA),
    "moves": each(
        {
            **of(
                "id:int pid:int start_ticks:int policy:str reason:str reason_text:str to:str "
                "moved_bytes:int undoable_bytes:int"
            ),
            "from": by("int"),
            "pages": by("int"),
            **of("going_on:bool age_seconds:num"),
        }
    ),
}

LEASE: Final = {
    **of("id:int nodes:str cpus:num memory_bytes:int age_seconds:num left_seconds:num"),
}

ADVICE: Final = {
    "schema": one_of(SCHEMA),
    "advice": {
        **of("nodes:str fits:bool detail:str cpus:num memory_bytes:int"),
        "shares": each({"node": "int", "cpus": "num", "memory_bytes": "int"}),
        **of("age_seconds:num"),
        "source": one_of("daemon", "machine"),
    },
    "lease": maybe(LEASE),
    "lease_detail": "str",
}

LEASES: Final = {"schema": one_of(SCHEMA), "leases": each(LEASE)}

RELEASED: Final = {"schema": one_of(SCHEMA), "released": "bool"}

PAUSED: Final = {"schema": one_of(SCHEMA), "pause": PAUSE}

RESUMED: Final = {"schema": one_of(SCHEMA), "was_paused": "bool"}

MODE_CHANGED: Final = {"schema": one_of(SCHEMA), "mode": MODE}

CONFIG: Final = {"schema": one_of(SCHEMA), "path": "str?", "config": by("any"), "origins": by("str")}

RELOADING: Final = {"schema": one_of(SCHEMA), "accepted": "bool"}

ADMITTED: Final = {
    "schema": one_of(SCHEMA),
    "import": {"number": "int", "wanted": each("int"), "refused": by("str"), "is_timed": "bool"},
}

IMPORTED: Final = {
    "schema": one_of(SCHEMA),
    "processes": each(
        of(
            "pid:int start_ticks:int counted_samples:int earlier_samples:int elsewhere_samples:int "
            "unknown_cpu_samples:int"
        )
    ),
}

RECORDING: Final = {"schema": one_of(SCHEMA), "recording": {"number": "int"}}

FETCHED: Final = {
    "schema": one_of(SCHEMA),
    "recording": of("number:int ticks:int ended:str?"),
    "lines": each(by("any")),
}

DONE: Final = {"schema": one_of(SCHEMA)}
"""That something went well says the status code."""

ERROR: Final = {"schema": one_of(SCHEMA), "error": "str"}
