"""A directory whose files are perf logs: each is imported once, when nobody writes to it any more.

Owns which files were seen. Looks when it is told to and reads in a thread of its own, one file at a time: a large log
keeps no tick waiting. Who may write to the directory decides what memory moves, so it must belong to root or to the
daemon's user, and nobody else may write to it. It must not know how samples are counted.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from balancerd.config.custody import objection, open_kept
from balancerd.kernel.accesses.log_clock import ClockError
from balancerd.kernel.accesses.log_file import LogFile, LogUnreadableError
from balancerd.kernel.accesses.log_store import ImportRefusedError, LogHeader, LogStore

PIECE_SAMPLES = 2048
"""The store is locked while a piece is counted, for a few milliseconds."""

MOST_FILES = 4096
"""Of a directory with more, the rest is not looked at."""

_UNFINISHED = (".tmp", ".part", "~")


@dataclass(frozen=True, slots=True, order=True)
class _Seen:
    """A file as it was: one that is written to is another one."""

    modified_ns: int
    inode: int
    n_bytes: int
    name: str


class LogDirectory:
    """Imports the files of a directory into a store. `tell` is given one sentence for each, in the thread that reads.

    A file is taken once it has not changed between two looks. Names that begin with a dot or end as unfinished files do
    are passed over, and so are links.
    """

    def __init__(self, store: LogStore, tell: Callable[[str], None]) -> None:
        self._store = store
        self._tell = tell
        self._path: str | None = None
        self._before: frozenset[_Seen] = frozenset()
        self._done: set[_Seen] = set()
        self._complaint: str | None = None
        self._worker: threading.Thread | None = None

    def use(self, path: str | None) -> None:
        """Look at another directory from now on, None: at none."""
        if path != self._path:
            self._path, self._complaint = path, None
            self._before, self._done = frozenset(), set()

    def look(self) -> None:
        """Begin to import the oldest file that is new and finished, unless one is being imported."""
        path = self._path
        if path is None or (self._worker is not None and self._worker.is_alive()):
            return
        try:
            found = _files(path)
            self._complaint = None
        except OSError as error:
            complaint = f"accesses.log_directory: {path}: {error.strerror}"
            if complaint != self._complaint:
                self._complaint = complaint
                self._tell(complaint)
            return
        self._done &= found
        finished = sorted((found & self._before) - self._done)
        self._before = found
        if finished:
            self._done.add(finished[0])
            arguments = (path, finished[0])
            self._worker = threading.Thread(target=self._import, args=arguments, name="log-directory", daemon=True)
            self._worker.start()

    def _import(self, directory: str, seen: _Seen) -> None:
        path = f"{directory}/{seen.name}"
        try:
            self._tell(import_file(path, self._store))
        except (LogUnreadableError, ClockError) as error:
            self._tell(f"not taken: {path}: {error}")
        except ImportRefusedError:
            self._done.discard(seen)  # somebody else is importing: its turn comes again


def import_file(path: str, store: LogStore) -> str:
    """Import one file, and return a sentence about it. Raises LogUnreadableError, ClockError, ImportRefusedError."""
    with LogFile(path, asked_for=False) as file:
        tally = file.survey()
        admission = store.begin(
            LogHeader(
                name=path,
                samples_by_pid=tally.samples_by_pid,
                first_seconds=tally.first_seconds,
                last_seconds=tally.last_seconds,
                clock=tally.clock,
                lost_samples=tally.lost_samples,
            )
        )
        try:
            for piece in file.samples(tally, set(admission.wanted), PIECE_SAMPLES):
                store.add(admission.number, [sample.in_nanoseconds() for sample in piece])
        except BaseException:
            store.abandon(admission.number)
            raise
        done = store.commit(admission.number)
    counted = ", ".join(f"{each.hits} of process {each.process.pid}" for each in done) or "none"
    told = f"{path}: {tally.samples} samples in {tally.lines} lines, counted: {counted}"
    odd = "".join(f"; {each}" for each in tally.odd_lines[:1])
    return told + (f"; {tally.odd} lines are no samples{odd}" if tally.odd else "")


def _files(path: str) -> frozenset[_Seen]:
    """Return the files of a directory. Raises OSError; PermissionError when others may write to it."""
    with contextlib.ExitStack() as stack:
        opened = open_kept(path, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, opened)
        problem = objection(os.fstat(opened))
        if problem is not None:
            raise PermissionError(0, problem)
        return _list(stack.enter_context(os.scandir(opened)))


def _list(entries: Iterable[os.DirEntry[str]]) -> frozenset[_Seen]:
    found: list[_Seen] = []
    for entry in entries:
        if entry.name.startswith(".") or entry.name.endswith(_UNFINISHED) or not entry.is_file(follow_symlinks=False):
            continue
        try:
            its = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        found.append(_Seen(its.st_mtime_ns, its.st_ino, its.st_size, entry.name))
        if len(found) >= MOST_FILES:
            break
    return frozenset(found)
