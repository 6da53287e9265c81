"""The dashboard of many machines: what is wrong and where, is memory where it should be, how does a rollout go."""

from typing import Final

from deploy.grafana import machine
from deploy.grafana.costs import MEMORY_HIGH_BYTES
from deploy.grafana.figures import REMOTE_STEPS, where_memory_is
from deploy.grafana.panels import (
    Column,
    Json,
    Panel,
    Query,
    Row,
    curves,
    label_variable,
    link,
    number,
    source_variable,
    table,
)
from deploy.grafana.panels import dashboard as build

UID: Final = "balancerd-fleet"

JOB: Final = 'job="balancerd"'

HERE: Final = 'cluster=~"$cluster", ring=~"$ring"'
"""Matchers of the machines that are chosen."""

MACHINE: Final = link(
    "This machine",
    f"/d/{machine.UID}?var-datasource=${{datasource}}&var-cluster=${{__data.fields.Cluster}}"
    "&var-instance=${__data.fields.Machine}&${__url_time_range}",
)

MOST: Final = 25
"""Rows of a table."""


def dashboard() -> Json:
    """Return the document."""
    return build(
        uid=UID,
        title="balancerd: the fleet",
        text="All machines that run balancerd: what is wrong, where memory is remote, how a rollout goes.",
        variables=(
            source_variable(),
            label_variable("cluster", "Cluster", f"up{{{JOB}}}", is_multi=True),
            label_variable("ring", "Ring", f'up{{{JOB}, cluster=~"$cluster"}}', is_multi=True),
            label_variable("workload", "Workload", f"balancerd_workload_resident_bytes{{{HERE}}}", is_multi=True),
        ),
        rows=(
            Row(title=None, panels=_health()),
            Row(title="What is wrong", panels=_wrong()),
            Row(title="Where memory is remote", panels=_memory()),
            Row(title="Rollout", panels=_rollout()),
            Row(title="Budgets", panels=_budgets()),
        ),
    )


def _health() -> tuple[Panel, ...]:
    firing = 'ALERTS{alertname=~"Balancerd.+", alertstate="firing", cluster=~"$cluster", severity="%s"}'
    enforce = f'balancerd_mode{{mode="enforce", {HERE}}}'
    remote = f"sum(instance:balancerd_remote_bytes:sum{{{HERE}}})"
    return (
        number("Machines", "Targets of the job balancerd.", Query(expression=f"count(up{{{JOB}, {HERE}}})")),
        number(
            "Down",
            "Machines that cannot be scraped.",
            Query(expression=f"count(up{{{JOB}, {HERE}}} == 0) or vector(0)"),
            steps=((1, "orange"),),
        ),
        number(
            "Critical alerts",
            "Somebody's memory is worse off than without balancerd, or may soon be.",
            Query(expression=f"count({firing % 'critical'}) or vector(0)"),
            steps=((1, "red"),),
        ),
        number(
            "Warnings",
            "balancerd does not do its work on some machine.",
            Query(expression=f"count({firing % 'warning'}) or vector(0)"),
            steps=((1, "orange"),),
        ),
        number(
            "Enforcing",
            "Share of the machines on which memory moves; the others only look.",
            Query(expression=f"sum({enforce}) / count({enforce})"),
            unit="percentunit",
        ),
        *where_memory_is(
            remote_ratio=f"{remote} / (sum(instance:balancerd_judged_bytes:sum{{{HERE}}}) > 0)",
            pending_bytes=f"sum(instance:balancerd_plan_pending_bytes:sum{{{HERE}}})",
            moved_bytes_per_second=f"sum(instance:balancerd_migrated_bytes:rate5m{{{HERE}}})",
        ),
    )


def _wrong() -> tuple[Panel, ...]:
    alerts = 'ALERTS{alertname=~"Balancerd.+", alertstate="firing", cluster=~"$cluster"}'
    return (
        table(
            "Alerts that fire",
            "What each means, and what to do: docs/alerts.md.",
            (
                Column(
                    title="",
                    query=Query(expression=f"count by (severity, alertname, cluster, instance) ({alerts})"),
                ),
            ),
            names={"severity": "Severity", "alertname": "Alert", "cluster": "Cluster", "instance": "Machine"},
            links={"Machine": MACHINE},
            width=16,
        ),
        table(
            "Versions",
            "Machines by the version that they run.",
            (
                Column(
                    title="Machines",
                    query=Query(expression=f"count by (cluster, version) (balancerd_build_info{{{HERE}}})"),
                ),
            ),
            names={"cluster": "Cluster", "version": "Version"},
            width=8,
        ),
    )


def _memory() -> tuple[Panel, ...]:
    chosen = f'{HERE}, workload=~"$workload"'
    remote = (
        f"sum by (cluster, workload) (sum without (numa_node) (balancerd_workload_resident_bytes{{{chosen}}})"
        f" * (1 - balancerd_workload_locality_ratio{{{chosen}}}))"
    )
    most = f"topk({MOST}, instance:balancerd_remote_bytes:sum{{{HERE}}})"

    def of_those(expression: str) -> Query:
        return Query(expression=f"{expression} and on (cluster, job, instance) {most}")

    return (
        curves(
            "Remote share by cluster",
            "Share of the memory that lies away from where its process runs.",
            Query(expression='cluster:balancerd_remote_bytes:ratio{cluster=~"$cluster"}', legend="{{cluster}}"),
            unit="percentunit",
            highest=1,
        ),
        curves(
            "Remote memory by workload",
            "On all chosen machines; the ten with most of it.",
            Query(expression=f"topk(10, {remote})", legend="{{cluster}}: {{workload}}"),
            unit="bytes",
        ),
        table(
            "Machines with most remote memory",
            "A click on a machine leads to its dashboard.",
            (
                Column(title="Remote", query=Query(expression=most), unit="bytes"),
                Column(
                    title="Share",
                    query=of_those(f"instance:balancerd_remote_bytes:ratio{{{HERE}}}"),
                    unit="percentunit",
                    steps=REMOTE_STEPS,
                ),
                Column(
                    title="Wanted elsewhere",
                    query=of_those(f"instance:balancerd_plan_pending_bytes:sum{{{HERE}}}"),
                    unit="bytes",
                ),
                Column(
                    title="Moving",
                    query=of_those(f"instance:balancerd_migrated_bytes:rate5m{{{HERE}}}"),
                    unit="binBps",
                ),
                Column(
                    title="Scan budget used",
                    query=of_those(f"instance:balancerd_scan_budget_used:ratio_rate15m{{{HERE}}}"),
                    unit="percentunit",
                ),
            ),
            names={"cluster": "Cluster", "ring": "Ring", "instance": "Machine"},
            links={"Machine": MACHINE},
            sorted_by="Remote",
        ),
    )


def _rollout() -> tuple[Panel, ...]:
    judged = f"balancerd_moves_judged_total{{{HERE}}}"
    return (
        curves(
            "Machines by mode",
            "A rollout begins with observe everywhere; ring after ring goes to enforce.",
            Query(expression=f"sum by (ring, mode) (balancerd_mode{{{HERE}}})", legend="{{ring}}: {{mode}}"),
            is_stacked=True,
        ),
        curves(
            "Remote share by ring",
            "Where memory moves it is to fall below that of rings that only look.",
            Query(
                expression=(
                    f"sum by (ring) (instance:balancerd_remote_bytes:sum{{{HERE}}})"
                    f" / (sum by (ring) (instance:balancerd_judged_bytes:sum{{{HERE}}}) > 0)"
                ),
                legend="{{ring}}",
            ),
            unit="percentunit",
            highest=1,
        ),
        curves(
            "What moves came to, by ring",
            "Moves within the hour before. Go on while worse is far below improved.",
            Query(expression=f"sum by (ring, result) (increase({judged}[1h]))", legend="{{ring}}: {{result}}"),
        ),
        curves(
            "Wanted elsewhere, by ring",
            "In rings that only look it is what would be moved.",
            Query(expression=f"sum by (ring) (instance:balancerd_plan_pending_bytes:sum{{{HERE}}})", legend="{{ring}}"),
            unit="bytes",
        ),
    )


def _budgets() -> tuple[Panel, ...]:
    resident = f"process_resident_memory_bytes{{{JOB}, {HERE}}}"
    used = f"instance:balancerd_scan_budget_used:ratio_rate15m{{{HERE}}}"
    return (
        curves(
            "Moved, and what may be moved",
            "The limit is the sum of migrate.rate_limit over the machines.",
            Query(
                expression='cluster:balancerd_migrated_bytes:rate5m{cluster=~"$cluster"}', legend="{{cluster}}: moved"
            ),
            Query(
                expression=f"sum by (cluster) (balancerd_migration_limit_bytes_per_second{{{HERE}}})",
                legend="{{cluster}}: limit",
            ),
            unit="binBps",
        ),
        curves(
            "Pages that did not move",
            "By why: docs/moving.md has the statuses.",
            Query(
                expression=(
                    'sum by (status) (cluster_status:balancerd_migration_failed_pages:rate5m{cluster=~"$cluster"})'
                ),
                legend="{{status}}",
            ),
            unit="ops",
            is_stacked=True,
        ),
        curves(
            "CPU of all daemons",
            "Cores.",
            Query(expression='cluster:balancerd_cpu_seconds:rate5m{cluster=~"$cluster"}', legend="{{cluster}}"),
            width=8,
        ),
        curves(
            "Scan budget used",
            "Share of select.scan_budget: of the machine in the middle, and of the one with most.",
            Query(expression=f"quantile by (cluster) (0.5, {used})", legend="{{cluster}}: half of them"),
            Query(expression=f"max by (cluster) ({used})", legend="{{cluster}}: most"),
            unit="percentunit",
            limit=((1, "orange"),),
            width=8,
        ),
        curves(
            "Memory of a daemon",
            "Of the one in the middle, and of the one with most. The line is MemoryHigh of the unit.",
            Query(expression=f"quantile by (cluster) (0.5, {resident})", legend="{{cluster}}: half of them"),
            Query(expression=f"max by (cluster) ({resident})", legend="{{cluster}}: most"),
            unit="bytes",
            limit=((MEMORY_HIGH_BYTES, "orange"),),
            width=8,
        ),
        curves(
            "Ticks that do not end well",
            "Share over an hour, of the five machines with most. The line is what an objective of 99.9 % allows.",
            Query(
                expression=f"topk(5, instance:balancerd_ticks_not_well:ratio_rate1h{{{HERE}}})",
                legend="{{cluster}}: {{instance}}",
            ),
            unit="percentunit",
            limit=((0.001, "orange"),),
            width=24,
        ),
    )
