"""The dashboard of one machine: is all well, where does memory lie, what moves, why not, what does that cost."""

from typing import Final

from deploy.grafana.chosen import CHOSEN, HERE
from deploy.grafana.costs import costs, more
from deploy.grafana.figures import where_memory_is
from deploy.grafana.moves import decisions, moves
from deploy.grafana.panels import (
    Column,
    Json,
    Panel,
    Query,
    Row,
    curves,
    label_variable,
    number,
    source_variable,
    table,
)
from deploy.grafana.panels import dashboard as build

UID: Final = "balancerd-machine"


def dashboard() -> Json:
    """Return the document."""
    return build(
        uid=UID,
        title="balancerd: a machine",
        text="Where the memory of one machine lies, what balancerd moves there, and what it leaves alone and why.",
        variables=(
            source_variable(),
            label_variable("cluster", "Cluster", "balancerd_build_info", is_multi=True),
            label_variable("instance", "Machine", 'balancerd_build_info{cluster=~"$cluster"}', is_multi=False),
            label_variable("workload", "Workload", f"balancerd_workload_resident_bytes{{{HERE}}}", is_multi=True),
        ),
        rows=(
            Row(title=None, panels=_health()),
            Row(title="Where memory lies", panels=_memory()),
            Row(title="What moves", panels=moves()),
            Row(title="What is decided, and what is held back", panels=decisions()),
            Row(title="What it costs", panels=costs()),
            Row(title="Accesses, threads, evictions, the machine", panels=more(), is_folded=True),
        ),
    )


def _health() -> tuple[Panel, ...]:
    return (
        number(
            "Alerts",
            "Alerts about this machine that fire. What each means is in docs/alerts.md.",
            Query(expression=f'count(ALERTS{{alertname=~"Balancerd.+", alertstate="firing", {HERE}}}) or vector(0)'),
            steps=((1, "red"),),
        ),
        number(
            "Mode",
            "enforce moves memory; observe decides the same and moves nothing.",
            Query(expression=f"balancerd_mode{{{HERE}}} == 1", legend="{{mode}}"),
            shows_name=True,
        ),
        number(
            "Last tick",
            "Time since a tick was last completed. It is to be no more than tick_interval and a little.",
            Query(expression=f"time() - balancerd_tick_last_success_timestamp_seconds{{{HERE}}}"),
            unit="s",
            steps=((60, "yellow"), (660, "red")),
        ),
        number(
            "Pause",
            "Moves rest, since an operator wants it so or since some went wrong: balancerctl status tells which.",
            Query(expression=f"balancerd_paused{{{HERE}}}"),
            words={0: ("none", "green"), 1: ("paused", "orange")},
        ),
        *where_memory_is(
            remote_ratio=f"instance:balancerd_remote_bytes:ratio{{{HERE}}}",
            pending_bytes=f"instance:balancerd_plan_pending_bytes:sum{{{HERE}}}",
            moved_bytes_per_second=f"instance:balancerd_migrated_bytes:rate5m{{{HERE}}}",
        ),
        number(
            "CPU of the daemon",
            "Share of one core, over five minutes, with what moving takes.",
            Query(expression=f"instance:balancerd_cpu_seconds:rate5m{{{HERE}}}"),
            unit="percentunit",
        ),
    )


def _memory() -> tuple[Panel, ...]:
    resident = f"sum without (numa_node) (balancerd_workload_resident_bytes{{{CHOSEN}}})"
    return (
        curves(
            "Remote share",
            "Share of the memory that lies away from where its process runs.",
            Query(expression=f"instance:balancerd_remote_bytes:ratio{{{HERE}}}", legend="remote"),
            unit="percentunit",
            highest=1,
        ),
        curves(
            "Remote memory by workload",
            "Memory away from its threads. The ten with most of it; what is outside the fifty largest is other.",
            Query(
                expression=f"topk(10, {resident} * (1 - balancerd_workload_locality_ratio{{{CHOSEN}}}))",
                legend="{{workload}}",
            ),
            unit="bytes",
        ),
        curves(
            "Memory by node",
            "Resident memory of the chosen workloads, by the node that holds it.",
            Query(
                expression=f"sum by (numa_node) (balancerd_workload_resident_bytes{{{CHOSEN}}})",
                legend="node {{numa_node}}",
            ),
            unit="bytes",
            is_stacked=True,
        ),
        curves(
            "CPU by node",
            "Cores in use by the chosen workloads, by the node where each thread ran last.",
            Query(
                expression=f"sum by (numa_node) (balancerd_workload_cpu_cores{{{CHOSEN}}})",
                legend="node {{numa_node}}",
            ),
            is_stacked=True,
        ),
        table(
            "Workloads",
            "Memory, share that is local, cores. A cell without a value is not known.",
            (
                Column(
                    title="Memory",
                    query=Query(expression=f"sum by (workload) (balancerd_workload_resident_bytes{{{CHOSEN}}})"),
                    unit="bytes",
                ),
                Column(
                    title="Local",
                    query=Query(expression=f"sum by (workload) (balancerd_workload_locality_ratio{{{CHOSEN}}})"),
                    unit="percentunit",
                ),
                Column(
                    title="Cores",
                    query=Query(expression=f"sum by (workload) (balancerd_workload_cpu_cores{{{CHOSEN}}})"),
                ),
            ),
            names={"workload": "Workload"},
            sorted_by="Memory",
            width=16,
        ),
        number(
            "Workloads known",
            "With at least one process that is large enough to be watched.",
            Query(expression=f"balancerd_workloads{{{HERE}}}"),
            width=4,
        ),
        number(
            "Version",
            "Of the daemon.",
            Query(expression=f"balancerd_build_info{{{HERE}}}", legend="{{version}}"),
            shows_name=True,
            width=4,
        ),
    )
