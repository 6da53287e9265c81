"""Counters, histograms and gauges as Prometheus families. Not locked: who keeps them does that."""

from bisect import bisect_left
from itertools import accumulate
from typing import TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

Values: TypeAlias = dict[tuple[str, ...], float]
"""Numbers by label values."""


class Counter:
    """Totals by label values."""

    def __init__(self, name: str, text: str, *labels: str) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._values: Values = {}

    def add(self, *values: str, by: float = 1.0) -> None:
        """Add to the total under these label values."""
        self._values[values] = self._values.get(values, 0.0) + by

    def family(self) -> Metric:
        """Return what a scrape shows."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for values, total in self._values.items():
            family.add_metric(values, total)
        return family


class Histogram:
    """Observations by label values, in buckets with inclusive upper bounds."""

    def __init__(self, name: str, text: str, bounds: tuple[float, ...], *labels: str) -> None:
        self._name, self._text, self._labels, self._bounds = name, text, labels, bounds
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: Values = {}
        if not labels:
            self._start(())

    def observe(self, seconds: float, *values: str) -> None:
        """Count one observation under these label values."""
        if values not in self._counts:
            self._start(values)
        self._counts[values][bisect_left(self._bounds, seconds)] += 1
        self._sums[values] += seconds

    def family(self) -> Metric:
        """Return what a scrape shows."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        names = [*map(str, self._bounds), "+Inf"]
        for values, counts in self._counts.items():
            buckets = list(zip(names, map(float, accumulate(counts)), strict=True))
            family.add_metric(values, buckets, sum_value=self._sums[values])
        return family

    def _start(self, values: tuple[str, ...]) -> None:
        self._counts[values] = [0] * (len(self._bounds) + 1)
        self._sums[values] = 0.0


def gauge(name: str, text: str, values: Values, *labels: str) -> Metric:
    """Return the gauge balancerd_NAME with its values by label values."""
    family = GaugeMetricFamily(f"balancerd_{name}", text, labels=labels)
    for label_values, value in values.items():
        family.add_metric(label_values, value)
    return family


def scalars(*gauges: tuple[str, str, float | None]) -> list[Metric]:
    """Return one gauge for each (name, help, value) whose value is known."""
    return [gauge(name, text, {(): float(value)}) for name, text, value in gauges if value is not None]
