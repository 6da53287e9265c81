"""What moves on one machine, what became of it, and what is decided and held back."""

from deploy.grafana.chosen import HERE
from deploy.grafana.panels import Panel, Query, curves


def moves() -> tuple[Panel, ...]:
    """Return what moved, how, and whether that was well."""
    failed = f"rate(balancerd_migration_failed_pages_total{{{HERE}}}[$__rate_interval])"
    calls = f"rate(balancerd_migration_call_duration_seconds_bucket{{{HERE}}}[$__rate_interval])"
    return (
        curves(
            "Moved, from node to node",
            "The line is migrate.rate_limit.",
            Query(
                expression=(
                    f"sum by (from_node, to_node) (rate(balancerd_migrated_bytes_total{{{HERE}}}[$__rate_interval]))"
                ),
                legend="{{from_node}} to {{to_node}}",
            ),
            Query(expression=f"balancerd_migration_limit_bytes_per_second{{{HERE}}}", legend="limit"),
            unit="binBps",
        ),
        curves(
            "Moved, by reason",
            "rollback is what went back since its first part did not stay, command what an operator moved.",
            Query(
                expression=f"sum by (reason) (rate(balancerd_migrated_bytes_total{{{HERE}}}[$__rate_interval]))",
                legend="{{reason}}",
            ),
            unit="binBps",
            is_stacked=True,
        ),
        curves(
            "What moves came to",
            "Moves within the hour before. improved: memory is there, and its process too. worse: it is not there.",
            Query(
                expression=f"sum by (result) (increase(balancerd_moves_judged_total{{{HERE}}}[1h]))",
                legend="{{result}}",
            ),
        ),
        curves(
            "What came back",
            "Share of pages that were elsewhere when they were asked for again after their move.",
            Query(
                expression=f"instance:balancerd_migration_returned_pages:ratio_rate1h{{{HERE}}}",
                legend="later",
            ),
            Query(
                expression=(
                    f'sum(rate(balancerd_migration_verified_pages_total{{result="elsewhere", {HERE}}}[1h]))'
                    f" / sum(rate(balancerd_migration_verified_pages_total{{{HERE}}}[1h]))"
                ),
                legend="right after",
            ),
            unit="percentunit",
            highest=1,
        ),
        curves(
            "Pages that did not move",
            "Submitted, and still where they were, by why: docs/moving.md has the statuses.",
            Query(
                expression=f"sum by (status) ({failed})",
                legend="{{status}}",
            ),
            unit="ops",
            is_stacked=True,
        ),
        curves(
            "Pages that were not submitted",
            "Looked at and left, by what they were; and further tries of pages that were busy for a moment.",
            Query(
                expression=(
                    f"sum by (status) (rate(balancerd_migration_passed_over_pages_total{{{HERE}}}[$__rate_interval]))"
                ),
                legend="{{status}}",
            ),
            Query(
                expression=f"rate(balancerd_migration_retried_pages_total{{{HERE}}}[$__rate_interval])",
                legend="tried again",
            ),
            unit="ops",
        ),
        curves(
            "How long a call lasts",
            "One call to move_pages(2), in which the process may wait. migrate.stall_target is what it aims at.",
            Query(expression=f"histogram_quantile(0.5, sum by (le) ({calls}))", legend="half of them"),
            Query(expression=f"histogram_quantile(0.99, sum by (le) ({calls}))", legend="99 of 100"),
            unit="s",
        ),
        curves(
            "Calls that stall",
            "Share of the calls that took longer than migrate.stall_limit, over half an hour.",
            Query(expression=f"instance:balancerd_migration_stalls:ratio_rate30m{{{HERE}}}", legend="stalls"),
            unit="percentunit",
        ),
        curves(
            "What moving waits for",
            "Share of the time in which memory was to be moved or evicted and waited. Causes may overlap.",
            Query(
                expression=(
                    f"sum by (cause) (rate(balancerd_migration_throttled_seconds_total{{{HERE}}}[$__rate_interval]))"
                ),
                legend="{{cause}}",
            ),
            unit="percentunit",
        ),
        curves(
            "How fast the kernel copies",
            "In its calls, as measured; a policy's gate reckons with it.",
            Query(
                expression=f"balancerd_migration_copy_bytes_per_second{{{HERE}}}",
                legend="{{from_node}} to {{to_node}}",
            ),
            unit="binBps",
        ),
    )


def decisions() -> tuple[Panel, ...]:
    """Return what policies want, and what keeps them from it."""
    return (
        curves(
            "Decisions",
            "What policies want in each second, by policy; one that goes on wanting the same counts in each tick.",
            Query(
                expression=(f"sum by (policy, action) (rate(balancerd_decisions_total{{{HERE}}}[$__rate_interval]))"),
                legend="{{policy}}: {{action}}",
            ),
            unit="ops",
        ),
        curves(
            "Held back, by reason",
            "Decisions that the plan turned down or that ended early; balancerctl explain tells of one process.",
            Query(
                expression=(
                    "topk(10, sum by (reason) "
                    f"(rate(balancerd_decisions_suppressed_total{{{HERE}}}[$__rate_interval])))"
                ),
                legend="{{reason}}",
            ),
            unit="ops",
        ),
        curves(
            "Wanted elsewhere, by policy",
            "What a policy wants moved and the last tick has not moved.",
            Query(expression=f"balancerd_plan_pending_bytes{{{HERE}}}", legend="{{policy}}"),
            unit="bytes",
            is_stacked=True,
        ),
        curves(
            "Processes by state",
            "Without those that are small or the kernel's own.",
            Query(
                expression=f'balancerd_processes{{state!~"small|kernel-thread", {HERE}}}',
                legend="{{state}}",
            ),
            is_stacked=True,
        ),
        curves(
            "Other managers at work",
            "While one moves memory to which balancerd yields, nothing is moved; others hold some processes.",
            Query(expression=f"balancerd_conflicting_manager_active{{{HERE}}} == 1", legend="{{manager}}"),
            Query(expression=f"balancerd_managed_processes{{{HERE}}} > 0", legend="processes of {{manager}}"),
            Query(expression=f"balancerd_kernel_numa_balancing_mode{{{HERE}}}", legend="kernel.numa_balancing"),
            width=8,
        ),
        curves(
            "Pressure",
            "Share of the last ten seconds in which some task waited; above migrate.max_..._pressure nothing moves.",
            Query(expression=f"balancerd_pressure_ratio{{{HERE}}}", legend="{{resource}}"),
            unit="percentunit",
            width=8,
        ),
        curves(
            "Policies that failed",
            "At work no more until the configuration is loaded again.",
            Query(expression=f"balancerd_policy_disabled{{{HERE}}}", legend="{{policy}}: {{cause}}"),
            width=8,
        ),
    )
