"""What the daemon has changed of threads' affinities, on disk before it is changed: a crash leaves nothing behind.

Owns the file, its form and its version. It must not know how an affinity is changed, nor when it is given back.
"""

import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from balancerd.config.custody import objection
from balancerd.kernel.errors import ParseError, ProcessGoneError
from balancerd.kernel.files import read_bytes
from balancerd.kernel.processes.identity import check_identity, read_start_ticks
from balancerd.kernel.whole_file import create_file, replace_file, sync_directory
from balancerd.model.ids import CpuId, ProcessId, format_id_list, parse_id_list

FORM: Final = "balancerd-threads"
VERSION: Final = 1
NAME: Final = "threads.json"
LARGEST_BYTES: Final = 64 << 20

DEFAULT_DIRECTORY: Final = "/var/lib/balancerd"


class JournalError(Exception):
    """The file is not one that this version has written, or may trust; the message says why."""


class InUseError(JournalError):
    """The file belongs to another daemon that runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thread whose affinity was narrowed from `before` to `ours`, at `at_ticks` after boot.

    `whole` tells that `before` was all that its cpuset allowed: it is given back as that of a thread for which nobody
    has chosen any. `start_ticks` is the thread's own.
    """

    process: ProcessId
    tid: int
    start_ticks: int
    before: frozenset[CpuId]
    ours: frozenset[CpuId]
    whole: bool
    at_ticks: int


def state_directory(configured: str | None, environment: Mapping[str, str]) -> Path:
    """Return where the daemon keeps what must outlive it: as configured, or as systemd says (systemd.exec(5))."""
    given = environment.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(configured or given or DEFAULT_DIRECTORY)


def explain_unwritable(directory: Path) -> str | None:
    """Return why nothing can be written down there, None when it can."""
    trial = directory / f"{NAME}.trial"
    try:
        trial.unlink(missing_ok=True)
        os.close(create_file(trial, 0o600))
        trial.unlink()
    except OSError as error:
        return f"{directory}: {error.strerror}"
    return None


class Journal:
    """The file in `directory`, of the daemon that is this process."""

    def __init__(self, directory: Path, procfs: str = "/proc") -> None:
        self.path = directory / NAME
        self._procfs = procfs

    def write(self, entries: Iterable[Entry]) -> None:
        """Replace what is written down, and return when it is on the disk; nothing is no file. Raises OSError."""
        told = [_tell(entry) for entry in entries]
        if not told:
            self.path.unlink(missing_ok=True)
            sync_directory(self.path.parent)
        else:
            own = os.getpid()
            document = {
                "form": FORM,
                "version": VERSION,
                "boot": self._boot(),
                "daemon": [own, read_start_ticks(own, self._procfs)],
                "threads": told,
            }
            new = self.path.with_name(f"{NAME}.new")
            new.unlink(missing_ok=True)  # of a daemon that was killed at this
            text = json.dumps(document, separators=(",", ":"))
            replace_file(self.path, text.encode("ascii"), beside=new, mode=0o600)

    def read(self) -> tuple[Entry, ...]:
        """Return what a daemon before has written down since boot; nothing without a file.

        Raises OSError, JournalError, and InUseError while that daemon runs.
        """
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return ()
        with os.fdopen(fd, "rb") as stream:
            about = os.fstat(stream.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise JournalError("it is no regular file")
            problem = objection(about)
            if problem is not None:
                raise JournalError(problem)
            text = stream.read(LARGEST_BYTES + 1)
        document = _parse(text)
        owner = _understood(lambda: ProcessId(*map(_number, document["daemon"])))
        entries: tuple[Entry, ...] = _understood(lambda: tuple(map(_entry, document["threads"])))
        if document.get("boot") != self._boot():
            return ()
        if owner.pid != os.getpid() and self._runs(owner):
            raise InUseError(f"it belongs to another balancerd that runs, pid {owner.pid}")
        return entries

    def put_aside(self) -> Path:
        """Keep the file under another name, for people, and return that. Raises OSError."""
        number = 1
        while (aside := self.path.with_name(f"{NAME}.bad-{number}")).exists():
            number += 1
        self.path.rename(aside)
        return aside

    def _boot(self) -> str:
        return read_bytes(f"{self._procfs}/sys/kernel/random/boot_id").decode("ascii", "replace").strip()

    def _runs(self, daemon: ProcessId) -> bool:
        try:
            check_identity(daemon, self._procfs)
        except (ProcessGoneError, ParseError):
            return False
        return True


def _parse(text: bytes) -> dict[str, Any]:
    if len(text) > LARGEST_BYTES:
        raise JournalError("it is too large")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise JournalError(f"it is no JSON: {error}") from error
    if not isinstance(document, dict) or document.get("form") != FORM:
        raise JournalError("balancerd has not written it")
    if document.get("version") != VERSION:
        raise JournalError(f"it has version {document.get('version')!r:.40}, this balancerd reads version {VERSION}")
    return document


def _tell(entry: Entry) -> dict[str, Any]:
    return {
        "pid": entry.process.pid,
        "start": entry.process.start_ticks,
        "tid": entry.tid,
        "tid_start": entry.start_ticks,
        "before": format_id_list(entry.before),
        "ours": format_id_list(entry.ours),
        "whole": entry.whole,
        "at": entry.at_ticks,
    }


def _entry(told: Mapping[str, Any]) -> Entry:
    if not isinstance(told["whole"], bool):
        raise TypeError("whole is no truth value")
    entry = Entry(
        process=ProcessId(_number(told["pid"]), _number(told["start"])),
        tid=_number(told["tid"]),
        start_ticks=_number(told["tid_start"]),
        before=frozenset(map(CpuId, parse_id_list(told["before"]))),
        ours=frozenset(map(CpuId, parse_id_list(told["ours"]))),
        whole=told["whole"],
        at_ticks=_number(told["at"]),
    )
    if not entry.before or not entry.ours:
        raise ValueError("an affinity without a CPU")
    return entry


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"{value!r} is no number")
    return value


def _understood(read: Any) -> Any:
    try:
        return read()
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise JournalError(f"it cannot be understood: {type(error).__name__}: {error!s:.200}") from error
