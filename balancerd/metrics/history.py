"""How the keeping of the history goes, as a scrape shows it. Nothing where none is kept."""

from prometheus_client.core import Metric

from balancerd.metrics.instruments import Counter, scalars
from balancerd.model.event import HistoryFigures


def families(figures: HistoryFigures | None) -> list[Metric]:
    """Return what a scrape shows."""
    if figures is None:
        return []
    written = Counter("balancerd_history_events_total", "Events written to the history.")
    lost = Counter("balancerd_history_lost_events_total", "Events that the history does not have, by why.", "cause")
    errors = Counter("balancerd_history_errors_total", "Times that the history could not be written, by why.", "error")
    written.add(by=figures.written_events)
    for cause, count in figures.lost_events.items():
        lost.add(cause, by=count)
    for error, count in figures.errors.items():
        errors.add(error, by=count)
    return [
        *(counter.family() for counter in (written, lost, errors)),
        *scalars(
            ("history_up", "Whether the history can be written.", figures.trouble is None),
            ("history_rows", "Events that the history has.", figures.rows),
            ("history_bytes", "Size of the history, with the log that sqlite keeps beside it.", figures.kept_bytes),
        ),
    ]
