"""What the operator reads: one canonical line a tick; under systemd entries of the journal, with fields of their own.

Owns the shape of log lines and the only import of structlog. It must not know where the daemon's standard error leads:
it is told of the journal, if there is one.

structlog imports rich, when installed, just to be able to format tracebacks with it; that costs the daemon 6.6 MiB. It
accepts that rich is missing, so rich is hidden from it while it is imported, and only then. Loggers are built here and
passed on; nothing is configured globally.
"""

import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TextIO, TypeAlias

from balancerd.engine import select
from balancerd.engine.chronicle import Chronicle
from balancerd.log import native
from balancerd.log.events import PHRASES, of_event
from balancerd.log.journald import Field, Journal
from balancerd.model.decision import Decision, Reason, Skip, Verdict
from balancerd.model.event import EventKind
from balancerd.model.ids import ProcessId
from balancerd.model.migration import MigrationOutcome
from balancerd.model.page_status import PageStatus
from balancerd.model.printable import is_printable, printable
from balancerd.model.report import TickReport
from balancerd.model.sample import PAGE_BYTES
from balancerd.model.steering import SteerOutcome


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Make `import package` fail inside the block (None in sys.modules, see importlib's docs), unless it is loaded."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]


with _hidden("rich"):
    import structlog
    from structlog.typing import EventDict, FilteringBoundLogger, Processor

Logger: TypeAlias = FilteringBoundLogger
"""What setup() returns and collaborators are given: `logger.info("fixed phrase", key=value)`."""


class LineWriter:
    """Writes finished lines to a stream, each in one piece. Losing a line must not stop the daemon: it is counted."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self.lost_lines = 0

    def msg(self, line: str) -> None:
        """Write one line."""
        with self._lock:
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except OSError:
                self.lost_lines += 1

    debug = info = warning = error = critical = msg


class JournalWriter:
    """Sends entries to the journal; one that it does not take goes to the stream, for it may lead somewhere else."""

    def __init__(self, journal: Journal, stream: TextIO) -> None:
        self._journal = journal
        self._instead = LineWriter(stream)

    def msg(self, fields: Sequence[Field]) -> None:
        """Send one entry, whose first field is its text."""
        if not self._journal.send(fields):
            self._instead.msg(fields[0][1])

    debug = info = warning = error = critical = msg


def setup(
    *,
    level: Literal["debug", "info", "warning", "error"] = "info",
    form: Literal["auto", "json", "console"] = "auto",
    stream: TextIO,
    journal: Journal | None = None,
) -> Logger:
    """Return a logger that writes to `stream`: JSON lines, or text for people when `form` or a terminal asks for it.

    With `journal` and `form` auto it sends entries there instead. Each event is exactly one line of printable
    characters, whatever the values hold.
    """
    to_console = form == "console" or (form == "auto" and stream.isatty())
    render: Processor = _render_console if to_console else structlog.processors.JSONRenderer()
    writer: LineWriter | JournalWriter = LineWriter(stream)
    if journal is not None and form == "auto":
        writer, render = JournalWriter(journal, stream), _render_native
    logger: Logger = structlog.wrap_logger(
        writer,
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _head_first,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        context_class=dict,
        cache_logger_on_first_use=True,
    ).bind()
    return logger


def _head_first(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Put what every line has in front."""
    return {**{key: event.pop(key) for key in ("timestamp", "level", "event")}, **event}


def _render_console(_logger: object, _method: str, event: EventDict) -> str:
    """`2026-11-20T12:00:00.000000Z info    tick number=3 mode=enforce`: the phrase, then words or quoted texts."""
    head = f"{event.pop('timestamp')} {event.pop('level'):7} {event.pop('event')}"
    return " ".join((head, *(f"{key}={_in_one_word(value)}" for key, value in event.items())))


def _render_native(_logger: object, _method: str, event: EventDict) -> tuple[tuple[list[Field]], dict[str, Any]]:
    """The fields of an entry, as the one argument of JournalWriter.msg(); the journal knows time and level itself."""
    told = {key: value for key, value in native.in_text(event).items() if key not in {"timestamp", "level", "event"}}
    text = " ".join((event["event"], *(f"{key}={_in_one_word(value)}" for key, value in told.items())))
    return ([*native.fields(event, text)],), {}


def _in_one_word(value: object) -> str:
    """Return a text of printable characters that cannot be taken for more than one value."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_in_one_word(part)}" for key, part in value.items()) + "}"
    text = "-" if value is None else str(value)
    return text if is_printable(text) and not set(text) & set(" \"'=\\{},") and text else printable(repr(text))


class TickLog:
    """The sink that writes one line a tick, event "tick", at level info; at warning when a policy was disabled.

    Detail (each decision, each change of a process's reason, each migration) is at level debug. With a `chronicle` its
    events are told, too, each once: at info, and at debug why something was held.
    """

    def __init__(self, logger: Logger, chronicle: Chronicle | None = None) -> None:
        self._logger = logger
        self._chronicle = chronicle
        self._reasons: dict[ProcessId, Reason] = {}

    def emit(self, report: TickReport) -> None:
        """Write the line of one finished tick."""
        if self._chronicle is not None:
            self._tell_events(self._chronicle, report)
        if self._logger.is_enabled_for(_DEBUG):
            self._tell_details(report)
        write = self._logger.warning if report.policy_errors else self._logger.info
        write("tick", **_summary(report))

    def _tell_events(self, chronicle: Chronicle, report: TickReport) -> None:
        told = [
            event
            for event in chronicle.of(report)
            if event.kind is not EventKind.HELD or self._logger.is_enabled_for(_DEBUG)
        ]
        for event in told[:MOST_EVENTS]:
            write = self._logger.debug if event.kind is EventKind.HELD else self._logger.info
            write(PHRASES[event.kind], **of_event(event))
        if len(told) > MOST_EVENTS:
            self._logger.info("events left out", events=len(told) - MOST_EVENTS)

    def _tell_details(self, report: TickReport) -> None:
        comms = {process.process.id: process.process.comm for process in report.processes}
        for verdict in report.verdicts if self._chronicle is None else ():
            if isinstance(verdict, Decision):
                self._logger.debug("decision", comm=comms.get(verdict.process), **_of_decision(verdict))
        for outcome in report.outcomes:
            self._logger.debug("migration", comm=comms.get(outcome.step.process), **_of_outcome(outcome))
        reasons = {process.process.id: process.reason for process in report.processes}
        for process in report.processes:
            if self._reasons.get(process.process.id) is not process.reason:
                self._logger.debug(
                    "reason changed",
                    pid=process.process.id.pid,
                    comm=process.process.comm,
                    reason=process.reason.value,
                    detail=process.detail,
                )
        self._reasons = reasons


MOST_EVENTS = 100
"""Events of one tick that are told, of a storm: the history has more of them."""

_DEBUG = 10
"""logging.DEBUG, without its module."""


def _summary(report: TickReport) -> dict[str, Any]:
    moved = sum(outcome.moved_pages for outcome in report.outcomes)
    not_selected = sum(_is_not_selected(verdict) for verdict in report.verdicts)
    summary: dict[str, Any] = {
        "number": report.number,
        "mode": report.mode,
        "surveyed": len(report.survey.processes),
        "eligible": len(report.survey.processes) - not_selected,
        "sampled": len(report.sampled),
        "decided": sum(isinstance(verdict, Decision) for verdict in report.verdicts),
        "planned": len(report.plan.steps),
        "moved_pages": moved,
        "moved_bytes": moved * PAGE_BYTES,
        "failed_pages": _failed_pages(report.outcomes),
        "evicted_bytes": sum(outcome.evicted_pages for outcome in report.evictions) * PAGE_BYTES,
        "threads": _threads(report.steers),
        "seconds": {phase: round(seconds, 6) for phase, seconds in report.phase_seconds.items()},
    }
    if report.policy_errors:
        summary["policy_errors"] = dict(report.policy_errors)
    return summary


def _threads(steers: tuple[SteerOutcome, ...]) -> dict[str, int]:
    """Return how many threads ended in which way, moves and releases together."""
    fates: dict[str, int] = {}
    for outcome in steers:
        for fate, number in outcome.threads.items():
            fates[fate.value] = fates.get(fate.value, 0) + number
    return fates


def _is_not_selected(verdict: Verdict) -> bool:
    return isinstance(verdict, Skip) and verdict.by == select.BY and verdict.reason is not Reason.SCAN_BUDGET


def _failed_pages(outcomes: tuple[MigrationOutcome, ...]) -> dict[str, int]:
    failed: dict[str, int] = {}
    for outcome in outcomes:
        for status, pages in outcome.pages.items():
            if pages and status is not PageStatus.MOVED:
                failed[status.value] = failed.get(status.value, 0) + pages
    return failed


def _of_decision(decision: Decision) -> dict[str, Any]:
    return {
        "policy": decision.policy,
        "pid": decision.process.pid,
        "target": decision.target,
        "misplaced_bytes": decision.misplaced_bytes,
        "gain_cores": round(decision.gain_cores, 6),
        "cost_seconds": round(decision.cost_seconds, 6),
        "reason": decision.reason.value,
        "detail": decision.detail,
    }


def _of_outcome(outcome: MigrationOutcome) -> dict[str, Any]:
    return {
        "policy": outcome.step.policy,
        "pid": outcome.step.process.pid,
        "target": outcome.step.target,
        "submitted_pages": outcome.submitted_pages,
        "moved_pages": outcome.moved_pages,
        "failed_pages": _failed_pages((outcome,)),
        "reason": outcome.step.reason.value,
        "move": outcome.step.move_id,
        "calls": len(outcome.call_seconds),
        "throttled_seconds": {cause: round(seconds, 6) for cause, seconds in outcome.throttled_seconds.items()},
        "longest_call_seconds": round(max(outcome.call_seconds, default=0.0), 6),
        "held_up_ratio": round(outcome.held_up_ratio, 3),
        "stopped_by": None if outcome.stopped_by is None else outcome.stopped_by.value,
        "detail": outcome.detail,
    }
