"""What the page remembers: the last report, the last hour, the newest decisions, and how the daemon fares.

Owns the page's memory, which is bounded whatever happens. The loop writes and HTTP threads read, so readers get one
consistent, immutable View. It must not know HTTP or HTML.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from balancerd.config.schema import Config
from balancerd.model.report import TickReport
from balancerd.model.sample import PAGE_BYTES
from balancerd.web.past import Hour, Minute
from balancerd.web.recent import PastDecision, Recent


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Everything that the page shows at one moment; times are monotonic seconds.

    `number` grows with every change. `refused` is why the last new configuration was not taken, `failed` the class of
    the exception that ended the last tick; None when all went well.
    """

    number: int
    version: str
    host: str
    config: Config
    started_at: float
    report: TickReport | None
    told_at: float | None
    minutes: tuple[Minute, ...]
    decisions: tuple[PastDecision, ...]
    moved_bytes: int
    failed_ticks: int
    refused: str | None
    failed: str | None


class PageMemory:
    """The sink behind the page. `now` returns monotonic seconds (Clock.now), `host` is the machine's name."""

    def __init__(self, now: Callable[[], float], *, version: str, host: str, config: Config) -> None:
        self._now = now
        self._version, self._host, self._config = version, host, config
        self._lock = threading.Lock()
        self._started_at = now()
        self._number = 0
        self._report: TickReport | None = None
        self._told_at: float | None = None
        self._hour, self._recent = Hour(), Recent()
        self._moved_bytes = self._failed_ticks = 0
        self._refused: str | None = None
        self._failed: str | None = None

    def emit(self, report: TickReport) -> None:
        """Take one finished tick."""
        told_at = self._now()
        with self._lock:
            self._number += 1
            self._report, self._told_at, self._failed = report, told_at, None
            self._hour.add(report, told_at)
            self._recent.add(report, told_at)
            self._moved_bytes += sum(sum(done.moved_from.values()) for done in report.outcomes) * PAGE_BYTES

    def tick_failed(self, error: str) -> None:
        """Note a tick that ended with an exception of class `error`."""
        with self._lock:
            self._number += 1
            self._failed, self._failed_ticks = error, self._failed_ticks + 1

    def reloaded(self, config: Config, error: str | None) -> None:
        """Note the configuration at work; with an `error` a new one was refused."""
        with self._lock:
            self._number += 1
            self._config, self._refused = config, error

    def view(self) -> View:
        """Return what is known now."""
        with self._lock:
            return View(
                number=self._number,
                version=self._version,
                host=self._host,
                config=self._config,
                started_at=self._started_at,
                report=self._report,
                told_at=self._told_at,
                minutes=self._hour.minutes(),
                decisions=self._recent.decisions(),
                moved_bytes=self._moved_bytes,
                failed_ticks=self._failed_ticks,
                refused=self._refused,
                failed=self._failed,
            )
