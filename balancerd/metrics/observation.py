"""What observing costs, and what it gets for that: processes read, placements by method, pages asked for, CPU time.

And of the processes whose accesses are watched: samples, what was lost of them, and what reading them cost.
"""

from prometheus_client.core import Metric

from balancerd.metrics.instruments import Counter, scalars
from balancerd.model.access import AccessMethod
from balancerd.model.placement_method import PlacementMethod
from balancerd.model.report import TickReport


class ObservationCounters:
    """Totals over all ticks."""

    def __init__(self) -> None:
        self._read = Counter(
            "balancerd_survey_processes_read_total", "Processes read anew by a survey; others are told as they were."
        )
        self._placements = Counter(
            "balancerd_placements_total", "Looks at where the memory of a process lies, by method.", "method"
        )
        self._pages = Counter(
            "balancerd_sample_pages_total", "Base pages whose node was asked for by looks at where it lies."
        )
        self._cpu = Counter("balancerd_scan_cpu_seconds_total", "CPU time used by observing.")
        self._samples = Counter(
            "balancerd_access_samples_total", "Samples of accesses, by whether they told anything.", "source", "result"
        )
        self._throttled = Counter(
            "balancerd_access_throttled_total", "How often the kernel switched sampling off for a while.", "source"
        )
        self._access_cpu = Counter(
            "balancerd_access_cpu_seconds_total",
            "CPU time of the daemon used by reading and judging samples.",
            "source",
        )
        for source in AccessMethod:
            for result in ("hit", "no-address", "lost", "cut"):
                self._samples.add(source.value, result, by=0.0)
            self._throttled.add(source.value, by=0.0)
            self._access_cpu.add(source.value, by=0.0)
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
        for window in report.accesses:
            source = window.method.value
            self._samples.add(source, "hit", by=window.hits)
            self._samples.add(source, "no-address", by=window.samples - window.hits)
            self._samples.add(source, "lost", by=window.lost_samples)
            self._samples.add(source, "cut", by=window.cut_samples)
            self._throttled.add(source, by=window.throttled)
            self._access_cpu.add(source, by=window.cpu_seconds)

    def families(self) -> list[Metric]:
        """Return what a scrape shows."""
        looking = (self._read, self._placements, self._pages, self._cpu)
        watching = (self._samples, self._throttled, self._access_cpu)
        return [counter.family() for counter in (*looking, *watching)]


def of_report(report: TickReport) -> list[Metric]:
    """Return the gauges of one report."""
    return scalars(
        ("scan_budget_ratio", "Share of one core that observing may use: select.scan_budget.", report.scan_budget_ratio)
    )
