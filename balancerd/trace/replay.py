"""Runs an engine over a trace: the ticks that were recorded, decided anew.

It must not know how an engine is put together, nor what becomes of the decisions.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

from balancerd.model.ids import ProcessId
from balancerd.model.report import TickReport
from balancerd.model.sample import PAGE_BYTES
from balancerd.ports import AccessWatch, Clock, HeatWatch, Kernel
from balancerd.trace import canon
from balancerd.trace.reader import Header, TraceReader
from balancerd.trace.records import TickRecord
from balancerd.trace.replay_ports import ReplayAccessWatch, ReplayClock, ReplayHeatWatch, ReplayKernel
from balancerd.trace.stage import ReplayedError, Stage
from balancerd.trace.tap import TickEngine

_NAMES: Final = canon.OwnNames()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPorts:
    """What an engine is given instead of the world."""

    kernel: Kernel
    clock: Clock
    access_watch: AccessWatch
    heat_watch: HeatWatch
    should_stop: Callable[[], bool]
    claimed: Callable[[], frozenset[ProcessId]]


Build = Callable[[Header, ReplayPorts], TickEngine]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedTick:
    """One tick decided anew: `lines` say what; `as_recorded`, whether the daemon decided the same, None: not known."""

    number: int
    report: TickReport | None
    failed: str | None
    lines: tuple[str, ...]
    as_recorded: bool | None


@dataclass(slots=True)
class Summary:
    """What a whole replay came to. `reasons` counts, over all ticks, why processes were left alone or moved."""

    ticks: int = 0
    failed: int = 0
    compared: int = 0
    as_recorded: int = 0
    last_other: int | None = None
    """The last tick that the daemon decided otherwise."""
    steps: int = 0
    moved_bytes: int = 0
    evictions: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    digest: str = ""
    ended: str | None = None
    broken: str | None = None


class Replay:
    """One run over one file. `summary` grows with each tick, and is whole when there are no more."""

    def __init__(self, path: Path, build: Build) -> None:
        self._path = path
        self._build = build
        self._hashed = sha256()
        self.summary = Summary()

    def ticks(self) -> Iterator[ReplayedTick]:
        """Yield each tick. Raises TraceError and OSError."""
        with TraceReader(self._path) as reader:
            stage: Stage | None = None
            engine: TickEngine | None = None
            for record in reader.ticks():
                if stage is None or engine is None:
                    stage = Stage(reader.known)
                    engine = self._build(reader.header, _ports(stage))
                yield self._note(_run(record, stage, engine))
                self.summary.asked, self.summary.missing = stage.asked, stage.missing
            self.summary.ended, self.summary.broken = reader.ended, reader.broken

    def _note(self, tick: ReplayedTick) -> ReplayedTick:
        summary = self.summary
        summary.ticks += 1
        summary.failed += tick.report is None
        if tick.as_recorded is not None:
            summary.compared += 1
            summary.as_recorded += tick.as_recorded
            summary.last_other = summary.last_other if tick.as_recorded else tick.number
        if tick.report is not None:
            summary.steps += len(tick.report.plan.steps)
            summary.evictions += len(tick.report.plan.evictions)
            summary.moved_bytes += sum(outcome.moved_pages for outcome in tick.report.outcomes) * PAGE_BYTES
            summary.reasons.update(process.reason.value for process in tick.report.processes)
        for line in (f"tick {tick.number}", *tick.lines):
            self._hashed.update(line.encode("utf-8", "backslashreplace") + b"\n")
        summary.digest = self._hashed.hexdigest()
        return tick


def _ports(stage: Stage) -> ReplayPorts:
    return ReplayPorts(
        kernel=ReplayKernel(stage),
        clock=ReplayClock(stage),
        access_watch=ReplayAccessWatch(stage),
        heat_watch=ReplayHeatWatch(stage),
        should_stop=lambda: bool(stage.light("stop")),
        claimed=lambda: frozenset(stage.light("claimed")),
    )


def _run(record: TickRecord, stage: Stage, engine: TickEngine) -> ReplayedTick:
    """Let the engine have what came before the tick, and run it."""
    stage.set(record.events)
    for index, event in enumerate(record.events):
        if event.kind == "tick":
            stage.go_to(index)
            break
        if event.kind == "moving" and isinstance(event.question, float | int):
            engine.note_moving(event.question)
        elif event.kind == "next" and isinstance(event.question, float | int):
            stage.go_to(index)
            engine.next_tick_at(event.question)
    try:
        report = engine.tick()
    except ReplayedError as error:
        failed = f"{error}"
        return ReplayedTick(
            number=record.number,
            report=None,
            failed=failed,
            lines=(f"failed {failed}",),
            as_recorded=None if record.failed is None else record.failed == failed,
        )
    as_recorded = None
    if record.digest is not None:
        as_recorded = record.digest == canon.digest(canon.tell(report, _NAMES, details=False))
    return ReplayedTick(
        number=record.number,
        report=report,
        failed=None,
        lines=tuple(canon.tell(report, _NAMES, details=True)),
        as_recorded=as_recorded,
    )
