"""Reading one file of procfs or sysfs, whole and once. Knows nothing of what the bytes mean."""

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
