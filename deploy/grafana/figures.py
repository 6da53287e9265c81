"""The figures that stand on top of both dashboards, of one machine or of many."""

from typing import Final

from deploy.grafana.panels import Panel, Query, number

REMOTE_STEPS: Final = ((0.1, "yellow"), (0.25, "orange"))
"""Colours of a remote share; the alert about it begins with the last."""


def where_memory_is(*, remote_ratio: str, pending_bytes: str, moved_bytes_per_second: str) -> tuple[Panel, ...]:
    """Return three figures, each an expression of one value."""
    return (
        number(
            "Remote memory",
            "Share of the memory that lies away from where its process runs, of the memory of which both is known.",
            Query(expression=remote_ratio),
            unit="percentunit",
            steps=REMOTE_STEPS,
        ),
        number(
            "Wanted elsewhere",
            "What policies want moved and the last tick has not moved. In mode observe it is what would be moved.",
            Query(expression=pending_bytes),
            unit="bytes",
        ),
        number(
            "Moving",
            "Bytes that change their node, over five minutes.",
            Query(expression=moved_bytes_per_second),
            unit="binBps",
        ),
    )
