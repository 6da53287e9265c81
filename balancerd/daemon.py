"""The loop around tick(): signals, reload, the watchdog. It must not know how the parts are made; wiring does.

SIGTERM and SIGINT finish the current call, or a short run of calls within one stall target, and end the loop;
SIGHUP reloads: a bad configuration keeps the old one and says so. Between ticks the loop works on operator's commands,
one slice after the other. The watchdog is fed from the loop itself, so a loop that hangs is noticed.
"""

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType

from balancerd.jobs.board import Jobs
from balancerd.log import Logger
from balancerd.model.report import TickReport
from balancerd.ports import Clock, Sink
from balancerd.precedence import Precedence
from balancerd.systemd import Notifier
from balancerd.trace.tap import TickEngine


class ReloadError(Exception):
    """The new configuration cannot be used; the message is for the operator, one finding a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What one configuration stands for: replaced whole by a reload, or not at all."""

    engine: TickEngine
    tick_interval_seconds: float
    summary: str
    log: Logger
    tick_log: Sink


class Flags:
    """What signal handlers leave behind; they do nothing else than set these and wake the clock."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.stop = False
        self.reload = False
        self._wake = wake

    def should_stop(self) -> bool:
        """Return whether a stop was asked for; migrations ask between short runs of calls."""
        return self.stop

    def request_stop(self) -> None:
        """Ask the loop to end after the current call."""
        self.stop = True
        self._wake()

    def request_reload(self) -> None:
        """Ask the loop to reload before its next tick."""
        self.reload = True
        self._wake()

    def install(self, wake_fd: int) -> None:
        """Take over SIGTERM, SIGINT and SIGHUP; `wake_fd` is written to at once, whichever thread takes the signal.

        Only the main thread may do this, see Python's `signal`.
        """

        def on_stop(_number: int, _frame: FrameType | None) -> None:
            self.request_stop()

        def on_reload(_number: int, _frame: FrameType | None) -> None:
            self.request_reload()

        signal.signal(signal.SIGTERM, on_stop)
        signal.signal(signal.SIGINT, on_stop)
        signal.signal(signal.SIGHUP, on_reload)
        signal.set_wakeup_fd(wake_fd, warn_on_full_buffer=False)


class Daemon:
    """Ticks until told to stop.

    `reload` returns the new Running or raises ReloadError with nothing changed; `before_tick` returns the one to go on
    with, None for the same. `on_reloaded` is told the error, None for success; `on_tick_failed` the class name of the
    exception that ended a tick.
    """

    def __init__(
        self,
        *,
        running: Running,
        reload: Callable[[], Running],
        clock: Clock,
        flags: Flags,
        jobs: Jobs,
        sinks: Sequence[Sink],
        on_tick_failed: Callable[[str], None],
        on_reloaded: Callable[[str | None], None],
        notifier: Notifier,
        watchdog_seconds: float | None,
        precedence: Precedence,
        before_tick: Callable[[], Running | None] = lambda: None,
    ) -> None:
        self._running = running
        self._reload = reload
        self._clock = clock
        self._flags = flags
        self._jobs = jobs
        self._sinks = tuple(sinks)
        self._on_tick_failed = on_tick_failed
        self._on_reloaded = on_reloaded
        self._notifier = notifier
        self._watchdog_seconds = watchdog_seconds
        self._precedence = precedence
        self._before_tick = before_tick

    def run(self, *, once: bool = False) -> int:
        """Tick until a stop is asked for, or `once`; return the exit status.

        0 when it ended as asked, 1 when `once` and the only tick failed.
        """
        self._notifier.ready(self._running.summary)
        self._running.log.info("started", mode_summary=self._running.summary)
        ok = True
        while not self._flags.stop:
            started = self._clock.now()
            if self._flags.reload:
                self._do_reload()
            with self._precedence.hold():
                ok = self._tick()
            if once:
                break
            self._rest(self._running.engine.due_at(started, started + self._running.tick_interval_seconds))
        self._notifier.stopping()
        self._jobs.stop()
        self._running.log.info("stopped")
        return 0 if ok or not once else 1

    def _tick(self) -> bool:
        """Run one tick; a failure is logged and counted, and the next tick tries again."""
        try:
            self._running = self._before_tick() or self._running
            report = self._jobs.add_to(self._running.engine.tick())
            for sink in (*self._sinks, self._running.tick_log):
                sink.emit(report)
        except Exception as error:  # the loop outlives whatever one tick meets
            self._on_tick_failed(type(error).__name__)
            self._running.log.exception("tick failed", error=type(error).__name__)
            return False
        self._notifier.watchdog()
        self._notifier.status(_status(report, self._running.summary))
        return True

    def _do_reload(self) -> None:
        self._flags.reload = False
        self._notifier.reloading()
        error = None
        try:
            self._running = self._reload()
        except ReloadError as refused:
            error = str(refused)
            for line in error.splitlines():
                self._running.log.warning("configuration refused, the old one stays", finding=line)
        else:
            self._running.log.info("reloaded", mode_summary=self._running.summary)
        self._on_reloaded(error)
        told = self._running.summary if error is None else f"old configuration kept: {error.splitlines()[0]}"
        self._notifier.ready(told)

    def _rest(self, due_at: float) -> None:
        """Work and wait until the next tick is due and the scan budget allows it.

        The budget is asked once: waking up costs, too, and would be waited for again without end.
        """
        self._precedence.expect(due_at)
        self._work_until(due_at)
        if not self._is_interrupted():
            ready_at = self._running.engine.next_tick_at(due_at)
            if ready_at > self._clock.now():
                self._precedence.expect(ready_at)
                self._work_until(ready_at)

    def _is_interrupted(self) -> bool:
        return self._flags.stop or self._flags.reload

    def _work_until(self, deadline: float) -> None:
        """Work on jobs until the next tick is due, one slice at least, and wait when there is nothing to do.

        The watchdog is fed after each slice, and on the way when the interval is longer than its patience.
        """
        is_due = False
        while not (is_due or self._is_interrupted()):
            cpu_before = self._clock.cpu_seconds()
            next_at = self._jobs.work(deadline)
            self._running.engine.note_moving(self._clock.cpu_seconds() - cpu_before)
            self._notifier.watchdog()
            now = self._clock.now()
            if now < deadline:
                nap_until = deadline if self._watchdog_seconds is None else min(deadline, now + self._watchdog_seconds)
                self._clock.wait_until(nap_until if next_at is None else min(nap_until, next_at))
                self._notifier.watchdog()
            is_due = self._clock.now() >= deadline


def _status(report: TickReport, summary: str) -> str:
    moved = sum(outcome.moved_pages for outcome in report.outcomes)
    doing = f"moved {moved >> 8} MiB in the last tick" if moved else "nothing to move"
    return f"{summary}; {len(report.processes)} processes watched, {doing}"
