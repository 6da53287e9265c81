"""Watching the accesses of a few processes by the first source that works here.

Owns who is open. Must not know how a source works, nor why somebody wants a process watched.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from balancerd.kernel.errors import ParseError, ProcessGoneError
from balancerd.model.access import Accesses, AccessMethod, AccessWindow, Obstacle
from balancerd.model.decision import Reason, Skip
from balancerd.model.ids import ProcessId
from balancerd.ports import AccessSource, Clock

BY = "accesses"

PROBE_SECONDS = 60.0
"""A source that did not work is tried again after so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessSettings:
    """The `accesses` section of the configuration: what to watch with, whom, and what that may cost.

    `budget_ratio` is a share of one core, `table_bytes` the memory for the counts of one process.
    """

    methods: tuple[AccessMethod, ...] = (AccessMethod.REGISTERS,)
    most_processes: int = 4
    budget_ratio: float = 0.01
    table_bytes: int = 32 << 20


@dataclass(frozen=True, slots=True)
class _Found:
    source: AccessSource | None
    obstacle: Obstacle | None
    at: float


class Watcher:
    """The AccessWatch. `sources` in the order in which they are tried; of the processes the first ones are watched."""

    def __init__(self, clock: Clock, sources: Sequence[AccessSource], *, most_processes: int) -> None:
        self._clock = clock
        self._sources = tuple(sources)
        self._most_processes = most_processes
        self._found: _Found | None = None
        self._open: dict[ProcessId, None] = {}

    def use(self, sources: Sequence[AccessSource], *, most_processes: int) -> None:
        """Watch by other sources, or other numbers of processes, from now on."""
        if tuple(sources) != self._sources:
            self.close()
            self._sources, self._found = tuple(sources), None
        self._most_processes = most_processes

    def read(self, processes: Sequence[ProcessId]) -> Accesses:
        """See AccessWatch. Who is watched already goes on being watched, before others that are as welcome."""
        if not processes:
            self.close()
            return Accesses()
        found = self._find()
        if found.source is None:
            self.close()
            told = "accesses.sources is empty" if found.obstacle is None else f"{found.obstacle.seen}"
            return Accesses(missed={process: _no(process, told) for process in processes})
        kept = sorted(processes, key=lambda process: process not in self._open)[: self._most_processes]
        for process in tuple(self._open):
            if process not in kept:
                self._close(found.source, process)
        windows: dict[ProcessId, AccessWindow] = {}
        missed = {p: _no(p, "others are watched: accesses.max_processes") for p in processes if p not in kept}
        for process in kept:
            answer = self._read(found.source, process)
            if isinstance(answer, Skip):
                missed[process] = answer
            else:
                windows[process] = answer
        return Accesses(windows=windows, missed=missed)

    def close(self) -> None:
        """Watch nobody any more."""
        if self._found is not None and self._found.source is not None:
            for process in tuple(self._open):
                self._close(self._found.source, process)

    def _find(self) -> _Found:
        """Return the first source that works; one that does is not tried again."""
        found, now = self._found, self._clock.now()
        if found is not None and (found.source is not None or now - found.at < PROBE_SECONDS):
            return found
        obstacle: Obstacle | None = None
        for source in self._sources:
            its = source.probe()
            if its is None:
                self._found = _Found(source, None, now)
                return self._found
            obstacle = obstacle or its
        self._found = _Found(None, obstacle, now)
        return self._found

    def _read(self, source: AccessSource, process: ProcessId) -> AccessWindow | Skip:
        """Read a process, and give it up when that fails: it is opened anew the next time."""
        try:
            if process not in self._open:
                source.open(process)
                self._open[process] = None
            return source.read(process)
        except ProcessGoneError as error:
            told = str(error)
        except (ParseError, ValueError, OSError) as error:  # ValueError: more nodes or pages than a table can count
            told = f"it cannot be watched: {error}"
        self._close(source, process)
        return _no(process, told)

    def _close(self, source: AccessSource, process: ProcessId) -> None:
        self._open.pop(process, None)
        source.close(process)


def _no(process: ProcessId, detail: str) -> Skip:
    return Skip(by=BY, process=process, reason=Reason.NOT_WATCHED, detail=detail)
