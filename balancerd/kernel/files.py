"""Reading one file or directory of procfs or sysfs, whole and once. Knows nothing of what the bytes mean.

A process decides how long its own files are: a path in its maps may be as long as directories nest, and its environment
is whatever memory it says it is (PR_SET_MM_MAP, prctl(2)). So no read is without a bound.
"""

import errno
import os
from typing import Final

MOST_BYTES: Final = 64 << 20
"""Smaps of as many mappings as the kernel allows by default (65530, vm.max_map_count) are 50 MiB."""

_CHUNK_BYTES = 64 * 1024


def read_bytes(path: str, dir_fd: int | None = None, *, most_bytes: int = MOST_BYTES) -> bytes:
    """Return the whole content of `path`, relative to `dir_fd` when given.

    Raises OSError: FileNotFoundError and ProcessLookupError mean that a process is gone, EFBIG that there is more.
    """
    content = read_beginning(path, most_bytes + 1, dir_fd)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"more than {most_bytes} bytes", path)
    return content


def read_beginning(path: str, most_bytes: int, dir_fd: int | None = None) -> bytes:
    """Return the first bytes of `path`, or all when there are no more.

    Most files of procfs give at most a page a read (seq_file.c), so it reads until nothing comes. Raises OSError.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        first = os.read(fd, min(_CHUNK_BYTES, most_bytes))
        chunks, left_bytes = [first], most_bytes - len(first)
        while left_bytes and (chunk := os.read(fd, min(_CHUNK_BYTES, left_bytes))):
            chunks.append(chunk)
            left_bytes -= len(chunk)
    finally:
        os.close(fd)
    return first if len(chunks) == 1 else b"".join(chunks)


def read_if_there(path: str) -> bytes | None:
    """Return the whole content of `path`, None when there is no such file, or what it belongs to is just going away.

    ENODEV is what sysfs gives for a file of a node or device that was removed after the file was opened (kernfs_fop_*).
    """
    try:
        return read_bytes(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise


def list_names(directory: str) -> list[str]:
    """Return the names in a directory, in no order. Raises OSError."""
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries]


def write_file(path: str, text: str) -> None:
    """Write a file of procfs or sysfs by one call. Raises OSError with the path."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode("ascii"))
        finally:
            os.close(fd)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, path) from error
