"""Reading one file or directory of procfs or sysfs, whole and once. Knows nothing of what the bytes mean."""

import errno
import os

_CHUNK_BYTES = 64 * 1024


def read_bytes(path: str, dir_fd: int | None = None) -> bytes:
    """Return the whole content of `path`, relative to `dir_fd` when given.

    Most files of procfs give at most a page a read (seq_file.c), so it reads until nothing comes.
    Raises OSError: FileNotFoundError and ProcessLookupError mean that a process is gone.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        first = os.read(fd, _CHUNK_BYTES)
        chunks = [first]
        while chunk := os.read(fd, _CHUNK_BYTES):
            chunks.append(chunk)
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
