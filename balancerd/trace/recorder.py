"""A recording of the running daemon: the loop leaves ticks in a queue, whoever records fetches them as lines.

Owns the bounds and the lock. The loop never waits here, and what is dear, making lines, is done by the thread that asks
for them. A client that does not fetch in time loses the recording, and the daemon loses nothing. One at a time.
"""

import json
import secrets
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from balancerd.config.schema import Config
from balancerd.model.copying import Copying
from balancerd.model.report import TickReport
from balancerd.model.sample import PlacementSample
from balancerd.model.topology import Topology
from balancerd.trace.cloak import OWN_NUMBER, Cloak
from balancerd.trace.codec import encode
from balancerd.trace.configuration import cloaked, find_patterns
from balancerd.trace.form import ENDED_IN_TIME, FORMAT, LONGEST_SECONDS, VERSION
from balancerd.trace.records import LineWriter
from balancerd.trace.tap import RawTick

MOST_TICKS: Final = 64
MOST_RECORDS: Final = 200_000
"""Of processes, mappings and regions in ticks that nobody has fetched: about as many times half a KiB."""

PIECE_CHARACTERS: Final = 1 << 20
"""A piece ends behind the tick with which it is so long."""

ABANDONED_SECONDS: Final = 30.0
"""Who has not asked for so long has gone."""

ENDED_ON_REQUEST: Final = "as asked"
TOO_SLOW: Final = "its ticks were not fetched in time"
ABANDONED: Final = "nobody fetched it any more"


class RecordingRefusedError(Exception):
    """No recording can begin, or there is none of that number; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What the header of a trace tells: of the program, the kernel that moves are priced for, and the configuration."""

    version: str
    kernel: tuple[int, int]
    config: Config
    own_pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What was fetched: lines, each one JSON object; how many ticks that makes; `ended` says why no more will come."""

    number: int
    lines: tuple[str, ...]
    ticks: int
    ended: str | None


@dataclass(slots=True)
class _Recording:
    number: int
    source: Source
    ends_at: float
    asked_at: float
    queue: deque[RawTick] = field(default_factory=deque)
    records: int = 0
    ended: str | None = None
    writer: LineWriter | None = None
    ticks: int = 0
    fetching: threading.Lock = field(default_factory=threading.Lock)


class Recorder:
    """Records one daemon. `describe` tells what holds at the moment, `now` is the monotonic second.

    `salt` draws what names are hashed with.
    """

    def __init__(
        self,
        describe: Callable[[], Source],
        now: Callable[[], float],
        *,
        salt: Callable[[], bytes] = lambda: secrets.token_bytes(32),
    ) -> None:
        self._describe = describe
        self._now = now
        self._salt = salt
        self._lock = threading.Lock()
        self._recording: _Recording | None = None
        self._last_number = 0

    # for any thread

    def start(self, seconds: float) -> int:
        """Record from the next tick on, for so long; return the number. Raises RecordingRefusedError."""
        if not 0 < seconds <= LONGEST_SECONDS:
            raise RecordingRefusedError(f"a recording lasts up to {LONGEST_SECONDS / 3600:.0f} hours")
        source, now = self._describe(), self._now()
        with self._lock:
            self._check(now)
            if self._recording is not None and self._recording.ended is None:
                raise RecordingRefusedError("somebody else is recording: wait until it has ended")
            self._last_number += 1
            self._recording = _Recording(number=self._last_number, source=source, ends_at=now + seconds, asked_at=now)
            return self._last_number

    def fetch(self, number: int) -> Piece:
        """Return what has come since this was last asked. Raises RecordingRefusedError."""
        recording = self._find(number)
        try:
            with recording.fetching:
                return self._fetch(recording)
        except BaseException:
            self._end(recording, "the daemon failed to write it down")
            raise

    def stop(self, number: int) -> None:
        """Record no more; what has come can still be fetched. Raises RecordingRefusedError."""
        self._end(self._find(number), ENDED_ON_REQUEST)

    # for the loop

    @property
    def is_listening(self) -> bool:
        """Whether somebody records."""
        recording = self._recording
        return recording is not None and recording.ended is None

    def offer(self, tick: RawTick) -> None:
        """Take a tick, or end the recording when there is no room for it."""
        weight, now = _weigh(tick), self._now()
        with self._lock:
            self._check(now)
            recording = self._recording
            if recording is None or recording.ended is not None:
                return
            is_full = len(recording.queue) >= MOST_TICKS or recording.records + weight > MOST_RECORDS
            if recording.queue and is_full:
                recording.ended = TOO_SLOW
                return
            recording.queue.append(tick)
            recording.records += weight

    def keep_time(self) -> None:
        """End a recording whose time is over, or whose client has gone."""
        if self._recording is not None:
            with self._lock:
                self._check(self._now())

    def end(self, why: str) -> None:
        """End the recording, if there is one: another configuration holds from now on."""
        recording = self._recording
        if recording is not None:
            self._end(recording, why)

    def _find(self, number: int) -> _Recording:
        with self._lock:
            recording = self._recording
            if recording is None or recording.number != number:
                raise RecordingRefusedError(f"there is no recording {number}")
            recording.asked_at = self._now()
            return recording

    def _end(self, recording: _Recording, why: str) -> None:
        with self._lock:
            recording.ended = recording.ended or why

    def _check(self, now: float) -> None:
        """End a recording whose time is over, or whose client has gone; then nothing is kept for it."""
        recording = self._recording
        if recording is None:
            return
        if now - recording.asked_at > ABANDONED_SECONDS:
            recording.ended = recording.ended or ABANDONED
            recording.queue.clear()
            recording.records = 0
        elif now >= recording.ends_at:
            recording.ended = recording.ended or ENDED_IN_TIME

    def _fetch(self, recording: _Recording) -> Piece:
        lines: list[str] = []
        ticks = size = 0
        while size < PIECE_CHARACTERS:
            with self._lock:
                self._check(self._now())
                if not recording.queue:
                    break
                tick = recording.queue.popleft()
                recording.records = max(0, recording.records - _weigh(tick))
            if recording.writer is None:
                recording.writer, begin = _begin(recording.source, tick, self._salt())
                lines += begin
            lines.append(recording.writer.tick(tick))
            ticks += 1
            size += len(lines[-1])
        with self._lock:
            ended = None if recording.queue else recording.ended
        recording.ticks += ticks
        return Piece(number=recording.number, lines=tuple(lines), ticks=recording.ticks, ended=ended)


def _begin(source: Source, tick: RawTick, salt: bytes) -> tuple[LineWriter, tuple[str, str]]:
    """Return the writer of a new trace, and its first two lines."""
    config = source.config
    cloak = Cloak(
        salt=salt,
        own_pid=source.own_pid,
        patterns=find_patterns(config).rules(),
        keep_pattern=any(policy.kind == "interleave" for policy in config.policies),
    )
    topology = _topology(tick)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "balancerd": source.version,
        "kernel": list(source.kernel),
        "own_pid": OWN_NUMBER,
        "config": cloaked(config, cloak),
        "topology": None if topology is None else encode(topology, cloak),
        "copying": encode(Copying() if tick.before is None else tick.before.copying, cloak),
    }
    writer = LineWriter(cloak)
    if tick.before is not None:
        cloak.meet(process.process.id for process in tick.before.processes)
    return writer, (json.dumps(header, separators=(",", ":")), writer.known(_known(tick.before)))


def _topology(tick: RawTick) -> Topology | None:
    report = tick.report or tick.before
    return None if report is None else report.survey.topology


def _known(before: TickReport | None) -> tuple[PlacementSample, ...]:
    return () if before is None else tuple(p.placement for p in before.processes if p.placement is not None)


def _weigh(tick: RawTick) -> int:
    """Return about how many records a tick holds that are its own."""
    report = tick.report
    weight = len(tick.events)
    if report is None:
        return weight
    weight += report.survey.read_processes + len(report.verdicts)
    weight += sum(len(placement.vmas) for placement in report.sampled)
    weight += sum(len(window.runs) + len(window.regions) for window in report.accesses)
    return weight + sum(len(window.regions) for window in report.heats.windows.values())
