"""Watching the heat of a few processes by the configured source, in a thread of its own.

Owns who is watched, and that nothing of it outlives the daemon. A tick never waits for it: what a source does may wait
for the kernel, or for a lock of the process it is about. Must not know how a source works.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from balancerd.kernel.errors import ParseError, ProcessGoneError
from balancerd.model.access import Obstacle
from balancerd.model.heat import HeatMethod, Heats, HeatWindow
from balancerd.model.ids import ProcessId
from balancerd.ports import Clock, HeatSource

PROBE_SECONDS = 60.0
"""After so long it is tried again whether the source works, and whether it can watch whom it could not."""

MOST_AGE_SECONDS = 120.0
"""Older heat is history."""

LOCATE_SECONDS = 5.0
"""How often it is asked where the memory lies of those that a policy asks for: some thousand pages each time."""

END_SECONDS = 5.0
"""How long the end of the daemon waits for a source that is at work."""


class HeatWatcher:
    """The HeatWatch. `sources` by their method; `use()` says which one, and how many processes it may watch.

    `tell` is given a sentence when the source cannot be used, and when it can again, in the thread that tried it.
    `locate` adds to a window where its memory lies.
    """

    def __init__(
        self,
        clock: Clock,
        sources: Mapping[HeatMethod, HeatSource],
        tell: Callable[[str], None] = lambda _told: None,
        locate: Callable[[HeatWindow], HeatWindow] = lambda window: window,
    ) -> None:
        self._clock = clock
        self._sources = dict(sources)
        self._tell = tell
        self._locate = locate
        self._method: HeatMethod | None = None
        self._most_processes = 0
        self._wanted: tuple[ProcessId, ...] = ()
        self._asked: frozenset[ProcessId] = frozenset()
        self._is_first = True
        self._is_closed = False
        self._worker: threading.Thread | None = None
        # the worker's own
        self._at_work: tuple[HeatMethod | None, int] = (None, 0)
        self._open: set[ProcessId] = set()
        self._obstacle: Obstacle | None = None
        self._probed_at = float("-inf")
        self._not_before: dict[ProcessId, float] = {}
        self._located_at: dict[ProcessId, float] = {}
        self._heats = Heats()

    def use(self, method: HeatMethod | None, *, most_processes: int) -> None:
        """Watch by another source, or other numbers of processes, from the next tick on."""
        self._method, self._most_processes = method, most_processes

    def read(self, asked: Sequence[ProcessId], others: Iterable[ProcessId]) -> Heats:
        """See HeatWatch. Who is watched already goes on being watched, before others that nobody asked for."""
        heats = self._fresh()
        if self._is_closed or (self._worker is not None and self._worker.is_alive()):
            return heats
        if self._method is None and self._at_work[0] is None and not self._is_first:
            return heats
        self._asked = frozenset(asked)
        rest = sorted(others, key=lambda process: process not in self._open)
        self._wanted = tuple(dict.fromkeys((*asked, *rest)))[: self._most_processes]
        self._worker = threading.Thread(target=self._step, name="heat", daemon=True)
        self._worker.start()
        return heats

    def wait(self, seconds: float = END_SECONDS) -> None:
        """Wait for what is under way."""
        if self._worker is not None:
            self._worker.join(seconds)

    def close(self) -> None:
        """Watch nobody any more, and leave nothing behind. Raises nothing."""
        self._is_closed = True
        self.wait()
        self._shut()

    def _fresh(self) -> Heats:
        """Return what was found last, without what has grown old."""
        heats, least = self._heats, self._clock.now() - MOST_AGE_SECONDS
        if heats.method is not self._method:
            return Heats(method=self._method)
        windows = {process: window for process, window in heats.windows.items() if window.taken_at >= least}
        return replace(heats, windows=windows)

    def _step(self) -> None:
        """Do what is to be done now, once."""
        if self._is_first:
            self._is_first = False
            self._recover()
        if self._at_work != (self._method, self._most_processes):
            self._shut()
            self._at_work = (self._method, self._most_processes)
            self._obstacle = None
            self._probed_at = float("-inf")
        method = self._at_work[0]
        if method is None:
            self._heats = Heats()
            return
        source, now = self._sources[method], self._clock.now()
        if now - self._probed_at >= PROBE_SECONDS:
            before, self._obstacle = self._obstacle, source.probe()
            self._probed_at = now
            if self._obstacle != before:
                found = self._obstacle
                self._tell(
                    f"{method.value}: works" if found is None else f"{method.value}: {found.seen}; fix: {found.fix}"
                )
        if self._obstacle is not None:
            if self._open:
                self._shut()
            self._heats = Heats(method=method, obstacle=self._obstacle)
            return
        wanted = set(self._wanted)
        for process in self._open - wanted:
            self._close(source, process)
        self._not_before = {process: at for process, at in self._not_before.items() if process in wanted}
        windows: dict[ProcessId, HeatWindow] = {}
        missed: dict[ProcessId, str] = {}
        for process in self._wanted:
            if self._is_closed:
                return
            if now < self._not_before.get(process, now):
                missed[process] = self._heats.missed.get(process, "")
                continue
            try:
                window = self._read(source, process)
            except (ProcessGoneError, ParseError, LookupError, OSError) as error:
                missed[process] = str(error)
                self._close(source, process)
                self._not_before[process] = now + PROBE_SECONDS
                continue
            if window is not None:
                windows[process] = self._with_places(window, now)
        self._heats = Heats(method=method, windows=windows, missed=missed)

    def _read(self, source: HeatSource, process: ProcessId) -> HeatWindow | None:
        """Return what is new of a process, or what was known before. Raises as HeatSource.read() does."""
        if process not in self._open:
            source.open(process)
            self._open.add(process)
        return source.read(process) or self._heats.windows.get(process)

    def _with_places(self, window: HeatWindow, now: float) -> HeatWindow:
        """Return the window with where its memory lies, asked again when it is time."""
        process = window.process
        is_new = window is not self._heats.windows.get(process)
        if process not in self._asked:
            return window
        if not is_new and now - self._located_at.get(process, now) < LOCATE_SECONDS:
            return window
        self._located_at[process] = now
        return self._locate(window)

    def _close(self, source: HeatSource, process: ProcessId) -> None:
        self._located_at.pop(process, None)
        self._open.discard(process)
        try:
            source.close(process)
        except (OSError, ParseError):
            self._probed_at = float("-inf")  # something is wrong with it: see what

    def _recover(self) -> None:
        """End what a daemon that crashed has left, whatever is configured now."""
        for source in self._sources.values():
            try:
                source.recover()
            except (OSError, ParseError):
                continue  # there is no such thing here, or it is not for this user

    def _shut(self) -> None:
        self._open.clear()
        self._not_before.clear()
        method = self._at_work[0]
        if method is not None:
            try:
                self._sources[method].shut()
            except (OSError, ParseError):
                return  # what cannot be shut now is recovered at the next start
