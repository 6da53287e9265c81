"""Watching the accesses of a few processes, each by the first source that works for it.

Owns who is open. Must not know how a source works, nor why somebody wants a process watched.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from balancerd.kernel.errors import ParseError, ProcessGoneError
from balancerd.model.access import Accesses, AccessMethod, AccessWindow, Obstacle
from balancerd.model.decision import Reason, Skip
from balancerd.model.heat import HeatMethod
from balancerd.model.ids import ProcessId
from balancerd.ports import AccessSource, Clock

BY = "accesses"

PROBE_SECONDS = 60.0
"""After so long it is tried again which sources work."""

RETRY_SECONDS = 5.0
"""After so long, while one does not: somebody may have switched on what it needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessSettings:
    """The `accesses` section of the configuration: what to watch with, whom, and what that may cost.

    `budget_ratio` is a share of one core, `table_bytes` the memory for the counts of one process. Perf logs
    that appear in `log_directory` are imported. `heat` is watched by that method, None: not at all.
    """

    methods: tuple[AccessMethod, ...] = (AccessMethod.REGISTERS,)
    most_processes: int = 4
    budget_ratio: float = 0.01
    table_bytes: int = 32 << 20
    log_directory: str | None = None
    heat: HeatMethod | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    """The sources that work, in order, and what is in the way of the first one that does not."""

    sources: tuple[AccessSource, ...]
    obstacle: Obstacle | None
    at: float


class Watcher:
    """The AccessWatch. `sources` in the order in which they are tried; of the processes the first ones are watched.

    A process is watched by the first source that works, or the next one where that cannot watch it; and by that one as
    long as it works, so that what was counted is not lost.
    """

    def __init__(self, clock: Clock, sources: Sequence[AccessSource], *, most_processes: int) -> None:
        self._clock = clock
        self._sources = tuple(sources)
        self._most_processes = most_processes
        self._found: _Found | None = None
        self._open: dict[ProcessId, AccessSource] = {}

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
        if not found.sources:
            self.close()
            told = "accesses.sources is empty" if found.obstacle is None else f"{found.obstacle.seen}"
            return Accesses(missed={process: _no(process, told) for process in processes})
        kept = sorted(processes, key=lambda process: process not in self._open)[: self._most_processes]
        for process, source in tuple(self._open.items()):
            if process not in kept or source not in found.sources:
                self._close(process)
        windows: dict[ProcessId, AccessWindow] = {}
        missed = {p: _no(p, "others are watched: accesses.max_processes") for p in processes if p not in kept}
        for process in kept:
            answer = self._read(found.sources, process)
            if isinstance(answer, Skip):
                missed[process] = answer
            else:
                windows[process] = answer
        return Accesses(windows=windows, missed=missed)

    def close(self) -> None:
        """Watch nobody any more."""
        for process in tuple(self._open):
            self._close(process)

    def _find(self) -> _Found:
        """Return the sources that work; what does and does not may change, so it is tried again now and then."""
        found, now = self._found, self._clock.now()
        if found is None or now - found.at >= (PROBE_SECONDS if found.obstacle is None else RETRY_SECONDS):
            tried = [(source, source.probe()) for source in self._sources]
            working = tuple(source for source, obstacle in tried if obstacle is None)
            first = next((obstacle for _, obstacle in tried if obstacle is not None), None)
            found = self._found = _Found(working, first, now)
        return found

    def _read(self, sources: Sequence[AccessSource], process: ProcessId) -> AccessWindow | Skip:
        """Read a process by its source, or the first that can; one that none can read is tried anew the next time."""
        told = ""
        at = self._open.get(process)
        for source in sources if at is None else sources[sources.index(at) :]:
            try:
                if process not in self._open:
                    source.open(process)
                    self._open[process] = source
                return source.read(process)
            except ProcessGoneError as error:
                self._give_up(source, process)
                return _no(process, str(error))
            except (ParseError, ValueError, OSError) as error:  # ValueError: more nodes or pages than a table can count
                told = told or f"it cannot be watched: {error}"
                self._give_up(source, process)
        return _no(process, told)

    def _close(self, process: ProcessId) -> None:
        self._open.pop(process).close(process)

    def _give_up(self, source: AccessSource, process: ProcessId) -> None:
        """Close what may be open, or half open."""
        self._open.pop(process, None)
        source.close(process)


def _no(process: ProcessId, detail: str) -> Skip:
    return Skip(by=BY, process=process, reason=Reason.NOT_WATCHED, detail=detail)
