"""What the daemon costs on one machine, and the sources that few machines use."""

from typing import Final

from deploy.grafana.chosen import HERE
from deploy.grafana.panels import Column, Panel, Query, curves, table

MEMORY_HIGH_BYTES: Final = 256 << 20
"""MemoryHigh of systemd/balancerd.service."""


def costs() -> tuple[Panel, ...]:
    """Return CPU time, memory, ticks, errors and the history."""
    phases = f"rate(balancerd_tick_phase_duration_seconds_bucket{{{HERE}}}[$__rate_interval])"
    return (
        curves(
            "Scan budget used",
            "Share of select.scan_budget that observing takes. At 100 % ticks wait.",
            Query(
                expression=f"instance:balancerd_scan_budget_used:ratio_rate15m{{{HERE}}}",
                legend="used",
            ),
            unit="percentunit",
            limit=((1, "orange"),),
        ),
        curves(
            "CPU of the daemon",
            "Cores. observing is what the scan budget bounds, accesses what accesses.budget bounds.",
            Query(expression=f"instance:balancerd_cpu_seconds:rate5m{{{HERE}}}", legend="all"),
            Query(expression=f"rate(balancerd_scan_cpu_seconds_total{{{HERE}}}[$__rate_interval])", legend="observing"),
            Query(
                expression=f"sum(rate(balancerd_access_cpu_seconds_total{{{HERE}}}[$__rate_interval]))",
                legend="accesses",
            ),
        ),
        curves(
            "Memory of the daemon",
            "Above the line, MemoryHigh of the unit, systemd slows it down.",
            Query(expression=f'process_resident_memory_bytes{{job="balancerd", {HERE}}}', legend="resident"),
            unit="bytes",
            limit=((MEMORY_HIGH_BYTES, "orange"),),
        ),
        curves(
            "How long the phases of a tick take",
            "99 of 100 take no longer.",
            Query(
                expression=f"histogram_quantile(0.99, sum by (le, phase) ({phases}))",
                legend="{{phase}}",
            ),
            unit="s",
        ),
        curves(
            "Ticks",
            "degraded: a policy failed in it. failure: it ended with an exception, which is in the journal.",
            Query(
                expression=f"sum by (outcome) (rate(balancerd_ticks_total{{{HERE}}}[$__rate_interval]))",
                legend="{{outcome}}",
            ),
            unit="ops",
        ),
        curves(
            "What could not be read, or failed",
            "By where and what. Processes that vanish are normal.",
            Query(
                expression=(
                    f"sum by (source, error) (rate(balancerd_source_errors_total{{{HERE}}}[$__rate_interval])) > 0"
                ),
                legend="{{source}}: {{error}}",
            ),
            unit="ops",
        ),
        curves(
            "Processes read, and looks at their memory",
            "Reads by the survey, looks by method.",
            Query(
                expression=f"rate(balancerd_survey_processes_read_total{{{HERE}}}[$__rate_interval])",
                legend="read",
            ),
            Query(
                expression=f"sum by (method) (rate(balancerd_placements_total{{{HERE}}}[$__rate_interval]))",
                legend="look: {{method}}",
            ),
            unit="ops",
        ),
        curves(
            "Pages asked for by looks",
            "Base pages whose node was asked for.",
            Query(expression=f"rate(balancerd_sample_pages_total{{{HERE}}}[$__rate_interval])", legend="pages"),
            unit="ops",
        ),
        curves(
            "History",
            "Events written, events lost, and times that it could not be written, by why.",
            Query(expression=f"rate(balancerd_history_events_total{{{HERE}}}[$__rate_interval])", legend="written"),
            Query(
                expression=f"rate(balancerd_history_lost_events_total{{{HERE}}}[$__rate_interval])",
                legend="lost: {{cause}}",
            ),
            Query(
                expression=f"rate(balancerd_history_errors_total{{{HERE}}}[$__rate_interval])",
                legend="error: {{error}}",
            ),
            unit="ops",
            width=8,
        ),
        curves(
            "Size of the history",
            "With the log that sqlite keeps beside it; history.max_size bounds it.",
            Query(expression=f"balancerd_history_bytes{{{HERE}}}", legend="size"),
            unit="bytes",
            width=8,
        ),
        curves(
            "Requests",
            "On the control socket, and the clients that were turned away, here and where metrics are scraped.",
            Query(
                expression=(
                    f"sum by (method, code) (rate(balancerd_control_requests_total{{{HERE}}}[$__rate_interval]))"
                ),
                legend="{{method}} {{code}}",
            ),
            Query(
                expression=f"rate(balancerd_http_turned_away_total{{{HERE}}}[$__rate_interval]) > 0",
                legend="turned away, {{listener}}: {{reason}}",
            ),
            unit="ops",
            width=8,
        ),
    )


def more() -> tuple[Panel, ...]:
    """Return what is worth a row that is folded at first."""
    return (
        curves(
            "Samples of accesses",
            "hit told an address. lost and cut found no room.",
            Query(
                expression=(
                    f"sum by (source, result) (rate(balancerd_access_samples_total{{{HERE}}}[$__rate_interval])) > 0"
                ),
                legend="{{source}}: {{result}}",
            ),
            Query(
                expression=f"rate(balancerd_access_throttled_total{{{HERE}}}[$__rate_interval]) > 0",
                legend="{{source}}: switched off by the kernel",
            ),
            unit="ops",
        ),
        curves(
            "Threads moved to their memory",
            "By how each one ended.",
            Query(
                expression=(
                    f"sum by (kind, outcome) (rate(balancerd_thread_moves_total{{{HERE}}}[$__rate_interval])) > 0"
                ),
                legend="{{kind}}: {{outcome}}",
            ),
            unit="ops",
        ),
        curves(
            "Evicted",
            "Bytes that left memory, and those that were to leave and stayed.",
            Query(expression=f"rate(balancerd_evicted_bytes_total{{{HERE}}}[$__rate_interval])", legend="evicted"),
            Query(expression=f"rate(balancerd_eviction_kept_bytes_total{{{HERE}}}[$__rate_interval])", legend="kept"),
            unit="binBps",
        ),
        table(
            "Nodes",
            "Online nodes, and their CPUs.",
            (Column(title="", query=Query(expression=f"balancerd_numa_node_info{{{HERE}}}")),),
            names={"numa_node": "Node", "cpus": "CPUs", "memory": "Has memory"},
            width=6,
            height=8,
        ),
        table(
            "Distances",
            "As the firmware tells them; 10 is local.",
            (Column(title="Distance", query=Query(expression=f"balancerd_numa_distance{{{HERE}}}")),),
            names={"from_node": "From", "to_node": "To"},
            width=6,
            height=8,
        ),
    )
