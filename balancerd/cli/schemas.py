"""What --json prints: the JSON schema of each command's document, in one place.

deploy/schemas/balancerctl.schema.json is made of it (see `manual`), and tests hold every command against it. Within
schema 1 keys are added, never renamed or removed. It must not know how a document comes about.
"""

from typing import Any, Final

from balancerd.cli.options import SCHEMA
from balancerd.control.order_shapes import (
    ADVICE,
    JOBS,
    LEASES,
    MODE_CHANGED,
    MOVES,
    ONE_JOB,
    PAUSED,
    RELEASED,
    RESUMED,
)
from balancerd.control.shapes import Schema, Shape, by, each, either, maybe, of, one_of, schema_of
from balancerd.control.told_shapes import (
    EXPLAINED,
    HEAT,
    HISTORY,
    NODES,
    PLAN,
    PROCESS,
    STATUS,
    TOP,
    WORKLOADS,
)

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_PS: Final = either(
    {
        "schema": one_of(SCHEMA),
        "tick": "int?",
        "processes": each({**PROCESS, "state": "str", "remote_bytes": "num?"}),
        "hidden": "int",
    },
    WORKLOADS,
)

_EXPLAIN: Final = {
    "schema": one_of(SCHEMA),
    "tick": "int?",
    "process": {**EXPLAINED, **of("state:str next_text:str")},
}

_UNDO: Final = either(ONE_JOB, {**JOBS, "left_out": each({"move": "int", "pid": "int", "error": "str"})})

_REPLAY: Final = either(
    {
        "schema": one_of(SCHEMA),
        "trace": {
            **of("file:str balancerd:str kernel:str ticks:int ended:str? broken:str?"),
        },
        "replays": each(
            {
                **of(
                    "config:str digest:str ticks:int failed_ticks:int compared_ticks:int "
                    "ticks_as_recorded:int last_other_tick:int? steps:int moved_bytes:int evictions:int"
                ),
                "reasons": by("int"),
                "asked": by("int"),
                "not_recorded": by("int"),
                "without_effect": each("str"),
                "decisions?": each("any"),
            }
        ),
        "comparison": maybe(
            {
                **of("ticks:int different_ticks:int process_ticks:int different_process_ticks:int"),
                "differences": each(
                    {
                        **of("first_tick:int last_tick:int ticks:int process:int"),
                        "verdicts": each({"what": "str", "detail": "str"}),
                    }
                ),
            }
        ),
    },
    {"schema": one_of(SCHEMA), "file": "str", "config": by("any")},
)

_FIGURES: Final[dict[str, Any]] = {
    **of(
        "work_seconds:num run_seconds:num lost_seconds:num stall_seconds:num moving_seconds:num "
        "overload_seconds:num load_ratio:num processes:int resident_bytes:int births:int "
        "refused_births:int thread_moves:int ticks:int moved_bytes:int moved_bytes_per_hour:num "
        "steady_ratio_per_hour:num returned_bytes:int hasty_bytes:int oscillated_bytes:int"
    ),
    "course": each(
        {
            **of("at_seconds:num local_ratio:num? moved_bytes:int lost_seconds:num"),
            "free_bytes": by("int"),
        }
    ),
}

_LOST: Final = {"lost_seconds": "num?", "to_ratio": "num?"}

_SIMULATE: Final = either(
    {
        **of("scenario:str title:str duration_seconds:num nodes:int"),
        "schema": one_of(SCHEMA),
        **of("scheduler:str seed:int"),
        "engine": {**_FIGURES, "policy_errors": by("any")},
        "nothing": _FIGURES,
        "optimum": {"lost_seconds": "num?", "work_seconds": "num?", "exact": "bool", "why_not": "str?"},
        "memory_alone": {"foresight": _LOST, "waiting": _LOST},
        **of("lost_ratio:num? to_nothing_ratio:num? to_optimum_ratio:num?"),
    },
    {"schema": one_of(SCHEMA), "scenarios": each({"name": "str", "title": "str"})},
)

_LOG: Final = either(
    {
        **of(
            "path:str error:str? lines:int samples:int kernel_samples:int samples_without_address:int "
            "lost_samples:int truncated_lines:int foreign_lines:int is_timed:bool"
        ),
        "odd_lines": each({"line": "int", "what": "str"}),
        "processes": each(by("any")),
        "refused": by("str"),
    },
    {"path": "str", "error": "str"},
)

_POLICY: Final = {"kind": "str", "summary": "str", "module": "str", "options_schema": by("any")}

_SERVICE: Final = {
    "schema": one_of(SCHEMA),
    "dry_run": "bool",
    "files": each(
        {"path": "str", "action": one_of("write", "replace", "same", "keep", "remove"), "text": "str?", "why": "str?"}
    ),
    "commands": each("str"),
    "obstacles": each("str"),
}

_FINDING: Final = {"path": "str", "line": "int?", "column": "int?", "severity": "str", "message": "str"}

_STATUSES: Final = ("ok", "info", "warning", "failure", "unknown")

SHAPES: Final[dict[str, Shape]] = {
    "status": {**STATUS, "healthy": "bool?"},
    "top": TOP,
    "nodes": NODES,
    "ps": _PS,
    "plan": PLAN,
    "explain": _EXPLAIN,
    "heat": HEAT,
    "move": ONE_JOB,
    "evict": ONE_JOB,
    "undo": _UNDO,
    "moves": MOVES,
    "history": HISTORY,
    "pause": PAUSED,
    "resume": RESUMED,
    "mode": MODE_CHANGED,
    "reload": {"schema": one_of(SCHEMA), "reloaded": "bool?", "path": "str?", "findings": each("str")},
    "advise": either(ADVICE, LEASES, RELEASED),
    "import-log": {"schema": one_of(SCHEMA), "logs": each(_LOG)},
    "record": {"schema": one_of(SCHEMA), "file": "str", "ticks": "int", "bytes": "int", "ended": "str"},
    "replay": _REPLAY,
    "simulate": _SIMULATE,
    "doctor": {
        "schema": one_of(SCHEMA),
        "checks": each({"name": "str", "status": one_of(*_STATUSES), "seen": "str", "fix": "str?"}),
        "totals": dict.fromkeys(_STATUSES, "int"),
    },
    "service install": _SERVICE,
    "service remove": _SERVICE,
    "config check": {"schema": one_of(SCHEMA), "path": "str", "findings": each(_FINDING)},
    "config show": {"schema": one_of(SCHEMA), "path": "str", "config": by("any"), "origins": by("str")},
    "config diff": {
        **of("from:str to:str"),
        "schema": one_of(SCHEMA),
        "differences": each(
            {"key": "str", "before": "any", "after": "any", "in_first": "bool", "in_second": "bool", "at": "str?"}
        ),
    },
    "config schema": {"schema": one_of(SCHEMA), "json_schema": by("any")},
    "policies list": {"schema": one_of(SCHEMA), "policies": each(_POLICY)},
    "policies show": {"schema": one_of(SCHEMA), "policy": {**_POLICY, "description": "str"}},
}
"""The document of each command, by its words."""


def build_schema() -> Schema:
    """Return one JSON schema with the document of each command in its definitions."""
    return {
        "$schema": DIALECT,
        "title": "balancerctl --json",
        "description": "The document of each command is in $defs by the command's words.",
        "$defs": {words: schema_of(shape) for words, shape in SHAPES.items()},
    }
