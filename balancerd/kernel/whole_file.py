"""A file that is replaced whole or not at all: written beside, brought to the disk, and renamed over the old one.

Whoever is killed in between, or finds the disk full, leaves the old file as it was. It must not know what is in it.
"""

import contextlib
import os
from pathlib import Path


def create_file(path: Path, mode: int) -> int:
    """Return a descriptor of a new file, which is none that somebody has put there. Raises OSError."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)


def replace_file(path: Path, data: bytes, *, beside: Path, mode: int) -> None:
    """Put a file with `data` in the place of `path`, and return when it is on the disk; `beside` is its name before.

    Raises OSError; FileExistsError when there is something beside it.
    """
    fd = create_file(beside, mode)
    try:
        with os.fdopen(fd, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Return when the names in a directory are on the disk. Raises OSError."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
