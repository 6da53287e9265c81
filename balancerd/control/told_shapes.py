"""The shapes of what the control socket tells of machine, processes and moves. It must not know paths or commands.

The document of the control API is made of them and of order_shapes (see openapi), and so are the schemas of commands
that print an answer. Within schema 1 keys are added, never renamed or removed.
"""

from typing import Any, Final

from balancerd.control.api import SCHEMA
from balancerd.control.shapes import by, each, maybe, of, one_of

MODE: Final = one_of("enforce", "observe", None)

PROCESS: Final[dict[str, Any]] = {
    **of(
        "pid:int start_ticks:int comm:str uid:int? cgroup:str? workload:str workload_kind:str "
        "age_seconds:num rss_bytes:int cpu_cores:num? threads:int local_ratio:num?"
    ),
    "bytes_by_node": maybe(by("int")),
    "run_ratio": maybe(by("num")),
    **of("reason:str reason_text:str detail:str"),
}

WORKLOAD: Final[dict[str, Any]] = {
    **of("name:str kind:str cgroup:str? processes:int threads:int rss_bytes:int cpu_cores:num?"),
    "cores_by_node": by("num"),
    "run_ratio": maybe(by("num")),
    **of("exact:bool known_ratio:num? local_ratio:num?"),
    "bytes_by_node": maybe(by("int")),
    **of("remote_bytes:num? pending_bytes:int moving_processes:int"),
    "held": by("int"),
}

NODE: Final[dict[str, Any]] = {
    **of("node:int cpus:str total_bytes:int free_bytes:int? available_bytes:int?"),
    "distances": by("int"),
}

PAUSE: Final = {"since_seconds": "num", "left_seconds": "num?"}

STATUS: Final = {
    **of("version:str pid:int uptime_seconds:num"),
    "schema": one_of(SCHEMA),
    "mode": MODE,
    **of("paused:bool paused_detail:str?"),
    "pause?": maybe(PAUSE),
    "tick": maybe(
        {"number": "int", "age_seconds": "num", "interval_seconds": "num?", "phase_seconds": by("num")},
    ),
    "scan": maybe({"used_ratio": "num", "budget_ratio": "num?"}),
    "nodes": each(NODE),
    "copying": maybe(
        {
            "bytes_per_second": "int?",
            "measured_bytes": "int",
            "pairs": each({"from": "int", "to": "int", "bytes_per_second": "int", "measured_bytes": "int"}),
        }
    ),
    "counts": maybe(
        {
            **of(
                "surveyed:int sampled:int decided:int planned:int small_processes:int kernel_threads:int "
                "vanished_processes:int"
            ),
            "by_reason": by("int"),
        }
    ),
    "managers": maybe(
        each(
            {
                **of("manager:str active:bool yields:bool processes:int? detail:str fix:str? unreadable:str?"),
                "pids": each("int"),
            }
        )
    ),
    "totals": {
        **of("ticks:int failed_ticks:int moved_bytes:int submitted_pages:int"),
        "pages": by("int"),
    },
    "policy_errors": by("str"),
    "disabled_policies": by({"cause": "str", "detail": "str"}),
    "config": {
        "path": "str?",
        "files": each("str"),
        "last_reload": maybe({"succeeded": "bool", "at_unix_seconds": "num", "error": "str"}),
    },
}

NODES: Final = {
    "schema": one_of(SCHEMA),
    "tick": "int?",
    "age_seconds": "num?",
    "nodes": each(
        {
            **NODE,
            **of("load_ratio:num? known_bytes:int? tier:int?"),
            "free_blocks": maybe(each("int")),
            **of("min_watermark_bytes:int? low_watermark_bytes:int? high_watermark_bytes:int?"),
            "link": maybe(
                {
                    **of(
                        "initiators:str read_latency_seconds:num? write_latency_seconds:num? "
                        "read_bytes_per_second:num? write_bytes_per_second:num?"
                    ),
                }
            ),
            "hugetlb": each({"page_bytes": "int", "total_pages": "int", "free_pages": "int"}),
        }
    ),
    "devices": each({"kind": "str", "name": "str", "node": "int"}),
    "kernel": maybe(
        {
            **of("numa_balancing:int? demotion:bool? transparent_huge_pages:str? transparent_huge_defrag:str?"),
        }
    ),
    "processes": maybe({"surveyed": "int", "known": "int"}),
}

PROCESSES: Final = {"schema": one_of(SCHEMA), "tick": "int?", "processes": each(PROCESS)}

WORKLOADS: Final = {"schema": one_of(SCHEMA), "tick": "int?", "workloads": each(WORKLOAD)}

TOP: Final = {
    "schema": one_of(SCHEMA),
    "tick": "int?",
    "mode": MODE,
    **of("age_seconds:num? interval_seconds:num? sort:str match:str"),
    "nodes": each({**{k: v for k, v in NODE.items() if k != "distances"}, "load_ratio": "num?"}),
    "workloads": each({**WORKLOAD, "moved_bytes_per_second": "num?"}),
    "processes": each(
        {
            **PROCESS,
            **of("remote_bytes:num? state:str"),
            "next_move": maybe(of("policy:str target:int pending_bytes:int reason:str")),
            "moved_bytes_per_second": "num?",
        }
    ),
    "left_out": of("workloads:int processes:int"),
}

HISTORY: Final = {
    "schema": one_of(SCHEMA),
    "events": each(
        {
            **of("id:int at_unix_seconds:num kind:str decision:int? policy:str action:str? pid:int start_ticks:int"),
            **of("comm:str? workload:str?"),
            "from": by("int"),
            **of("to:int? bytes:int?"),
            "counts": by("int"),
            **of("reason:str detail:str move:int? tick:int daemon:int"),
        }
    ),
    "left_off": "int",
    **of("next_before:int? oldest_at_unix_seconds:num?"),
    "daemons": each(of("id:int started_at_unix_seconds:num pid:int version:str")),
}

PLAN: Final = {
    "schema": one_of(SCHEMA),
    "tick": "int?",
    "mode": MODE,
    "age_seconds": "num?",
    "moves": each(
        {
            **of("pid:int start_ticks:int comm:str workload:str policy:str bytes:int to:int?"),
            "action": one_of("migrate", "evict", "steer"),
            "from": maybe(by("num")),
            **of("seconds:num? cost_seconds:num? gain_cores:num? confidence:num?"),
            "state": one_of("moving", "waits", "observed", "refused"),
            **of("reason:str reason_text:str detail:str needs:str"),
        }
    ),
}

OUTCOME: Final = {
    **of(
        "tick:int age_seconds:num policy:str target:int move:int? submitted_pages:int calls:int "
        "longest_call_seconds:num? seconds:num"
    ),
    "pages": by("int"),
    "moved_from": by("int"),
    **of("stopped_by:str? detail:str"),
}

EXPLAINED: Final[dict[str, Any]] = {
    **PROCESS,
    **of("cpus_allowed:str? mems_allowed:str? next_look_seconds:num?"),
    "verdicts": each(
        {
            **of("by:str reason:str"),
            "action": one_of("migrate", "steer", "evict", "leave"),
            **of(
                "reason_text:str detail:str setting:str? at:str? needs?:str target?:int? "
                "misplaced_bytes?:int gain_cores?:num cost_seconds?:num pin?:bool evict_bytes?:int "
                "cold_only?:bool"
            ),
            "wanted?": maybe({"target": "int?", "misplaced_bytes": "int", "gain_cores": "num", "cost_seconds": "num"}),
        }
    ),
    "policies": each(
        {
            **of("name:str kind:str observing:bool at:str? disabled:str?"),
            "verdicts": "int",
        }
    ),
    "deciding": maybe({"by": "str", "reason": "str", "setting": "str?", "at": "str?", "needs": "str"}),
    "judged": maybe(
        {
            **of(
                "age_seconds:num policy:str to:int result:str moved_bytes:int fallen_bytes:num is_trial:bool detail:str"
            ),
        }
    ),
    "placement": maybe(
        {
            **of("age_seconds:num method:str queried_pages:int present_pages:int exact:bool seconds:num"),
            "share_intervals": by(each("num")),
            "mempolicies_age_seconds": "num?",
            "vmas": each(
                {
                    **of("start:str end:str kind:str name:str shared:bool absent_bytes:int page_bytes:int?"),
                    "bytes_by_node": by("int"),
                    "mempolicy": "str?",
                }
            ),
            "vmas_left_out": "int",
        }
    ),
    "outcome": maybe(OUTCOME),
    "history": each(OUTCOME),
}

ONE_PROCESS: Final = {"schema": one_of(SCHEMA), "tick": "int?", "process": EXPLAINED}

HEAT: Final = {
    "schema": one_of(SCHEMA),
    "tick": "int?",
    "cell_bytes": "int",
    "process": {
        **of("pid:int start_ticks:int comm:str rss_bytes:int"),
        "run_ratio": maybe(by("num")),
    },
    "placement": maybe({"age_seconds": "num", "method": "str", "queried_pages": "int", "exact": "bool"}),
    "accesses": maybe(
        {
            **of(
                "method:str age_seconds:num seconds:num watched_seconds:num samples:int hits:int "
                "lost_samples:int throttled:int threads:int"
            ),
            "unreported_regions": "int",
        }
    ),
    "unwatched": maybe({"reason": "str?", "reason_text": "str?", "detail": "str"}),
    "heat": maybe(
        {
            **of("method:str? age_seconds:num? seconds:num? watched_seconds:num? regions:int? cpu_ratio:num? told:str"),
        }
    ),
    "mappings": each(
        {
            **of("start:str end:str kind:str? name:str shared:bool vmas:int weight:num sparse:bool"),
            "bytes_by_node": by("num"),
            "cells": each(
                {
                    **of("start:str end:str node:int? asked:bool"),
                    "bytes_by_node": by("num"),
                    **of("weight:num use:str?"),
                    "weight_by_node": by("num"),
                    "weight_by_use": by("num"),
                    "heat": "num?",
                }
            ),
        }
    ),
    "left_out": {"mappings": "int", "bytes_by_node": by("num"), "weight": "num"},
}

TICK: Final = {
    "schema": one_of(SCHEMA),
    **of("missed:int age_seconds:num? tick:int?"),
    "status": STATUS,
    "nodes": NODES,
    "top": TOP,
    "moved": each(
        {
            **of("pid:int comm:str? policy:str reason:str target:int moved_bytes:int submitted_pages:int detail:str"),
            "from": by("int"),
            "pages": by("int"),
        }
    ),
    "moved_left_out": "int",
}
"""The data of an event of GET /v1/stream."""
