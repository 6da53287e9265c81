"""What observing costs, and what it gets for that: processes read, placements by method, pages asked for, CPU time."""

from prometheus_client.core import Metric

from balancerd.metrics.instruments import Counter, scalars
from balancerd.model.report import TickReport
from balancerd.model.sample import PlacementMethod


class ObservationCounters:
    """Totals over all ticks."""

    def __init__(self) -> None:
        self._read = Counter(
            "balancerd_survey_processes_read_total", "Processes read anew by a survey; others are told as they were."
        )
        self._placements = Counter(
            "balancerd_placements_total", "Looks at where the memory of a process lies, by method.", "method"
        )
        self._pages = Counter("balancerd_sample_pages_total", "Base pages whose node was asked for by these looks.")
        self._cpu = Counter("balancerd_scan_cpu_seconds_total", "CPU time used by observing.")
        for method in PlacementMethod:
            self._placements.add(method.value, by=0.0)
        for plain in (self._read, self._pages, self._cpu):
            plain.add(by=0.0)

    def count(self, report: TickReport) -> None:
        """Add what one tick looked at."""
        self._read.add(by=report.survey.read_processes)
        for placement in report.sampled:
            self._placements.add(placement.method.value)
            self._pages.add(by=placement.queried_pages)
        self._cpu.add(by=report.scan_cpu_seconds)

    def families(self) -> list[Metric]:
        """Return what a scrape shows."""
        return [counter.family() for counter in (self._read, self._placements, self._pages, self._cpu)]


def of_report(report: TickReport) -> list[Metric]:
    """Return the gauges of one report."""
    return scalars(
        ("scan_budget_ratio", "Share of one core that observing may use: select.scan_budget.", report.scan_budget_ratio)
    )
