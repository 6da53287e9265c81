"""A file that is replaced whole or not at all: written beside, brought to the disk, and renamed over the old one.

Whoever is killed in between, or finds the disk full, leaves the old file as it was. It must not know what is in it.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def create_file(path: Path, mode: int) -> int:
    """Return a descriptor of a new file, which is none that somebody has put there. Raises OSError."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Make a new file with `data`, and return when these are on the disk; what fails leaves none.

    Raises OSError; FileExistsError when there is something already.
    """
    fd = create_file(path, mode)
    with _gone_unless_done(path), os.fdopen(fd, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def replace_file(path: Path, data: bytes, *, beside: Path, mode: int) -> None:
    """Put a file with `data` in the place of `path`, and return when it is on the disk; `beside` is its name before.

    Raises OSError; FileExistsError when there is something beside it.
    """
    write_new(beside, data, mode)
    with _gone_unless_done(beside):
        beside.replace(path)
    sync_directory(path.parent)


@contextlib.contextmanager
def _gone_unless_done(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def sync_directory(path: Path) -> None:
    """Return when the names in a directory are on the disk. Raises OSError."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
