"""Where the file is, and with which number events go on. It must not know what is in it."""

import time
from collections.abc import Callable
from pathlib import Path

from balancerd.history.reader import FILE_NAME, read_last_id


def find_file(configured: str | None, directory: Path) -> Path | None:
    """Return the file as configured, else the one in the daemon's directory; None where that does not exist."""
    if configured is not None:
        return Path(configured)
    return directory / FILE_NAME if directory.is_dir() else None


def find_first_id(file: Path | None, unix_seconds: Callable[[], float] = time.time) -> int:
    """Return the first number that no event has had: behind the last one of the file, 1 without a file.

    While nobody can tell, it is the milliseconds of the wall clock: no daemon has told so many events.
    """
    last = 0 if file is None else read_last_id(file)
    return int(unix_seconds() * 1000) if last is None else last + 1
