"""Reading the file of a perf log, plain or gzip, twice: to see whether it is one, and for the samples that are wanted.

Streams: nothing of a file is kept but the piece at hand. Standard library only, since the client uses it, too. It must
not know where samples go.
"""

import gzip
import os
import stat
import zlib
from collections.abc import Collection, Iterator
from types import TracebackType
from typing import IO, Self

from balancerd.config.custody import objection
from balancerd.kernel.accesses.perf_log import MOST_LINE_BYTES, LogSample, LogTally, parse_perf_script

_GZIP_MAGIC = b"\x1f\x8b"


class LogUnreadableError(Exception):
    """The file cannot be read to its end, or is no log of perf; the message names it. Nothing of it is to be used."""


class LogFile:
    """Context manager around one file. Entering raises LogUnreadableError for what is no regular file.

    Unless somebody asked for it by name, a symbolic link is none, and others may not write to it.
    """

    def __init__(self, path: str, *, asked_for: bool = True) -> None:
        self.path = path
        self._is_asked_for = asked_for
        self._flags = 0 if asked_for else os.O_NOFOLLOW

    def __enter__(self) -> Self:
        try:
            # not to wait for the other end of a pipe, which is no regular file and refused below
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | self._flags)
        except OSError as error:
            raise LogUnreadableError(f"{self.path}: {error.strerror}") from error
        status = os.fstat(self._fd)
        problem = "no regular file (a log is read twice)" if not stat.S_ISREG(status.st_mode) else None
        if problem is None and not self._is_asked_for:
            problem = objection(status)
        if problem is not None:
            os.close(self._fd)
            raise LogUnreadableError(f"{self.path}: {problem}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def survey(self) -> LogTally:
        """Read it whole, and return what it holds. Raises LogUnreadableError."""
        tally = LogTally(path=self.path)
        for _ in self._batches(tally):
            pass
        objection = tally.objection()
        if objection is not None:
            raise LogUnreadableError(objection)
        return tally

    def samples(self, surveyed: LogTally, wanted: Collection[int], piece_samples: int) -> Iterator[list[LogSample]]:
        """Yield the samples of the pids wanted, in pieces. Raises LogUnreadableError, also if the file has changed."""
        tally = LogTally(path=self.path)
        piece: list[LogSample] = []
        for batch in self._batches(tally):
            piece += [sample for sample in batch if sample.pid in wanted]
            while len(piece) >= piece_samples:
                yield piece[:piece_samples]
                del piece[:piece_samples]
        if piece:
            yield piece
        if (tally.lines, tally.samples_by_pid) != (surveyed.lines, surveyed.samples_by_pid):
            raise LogUnreadableError(f"{self.path}: it has changed while it was read")

    def _batches(self, tally: LogTally) -> Iterator[list[LogSample]]:
        os.lseek(self._fd, 0, os.SEEK_SET)
        is_gzip = os.pread(self._fd, len(_GZIP_MAGIC), 0) == _GZIP_MAGIC
        try:
            with open(self._fd, "rb", closefd=False) as raw:
                if is_gzip:
                    with gzip.GzipFile(fileobj=raw) as unpacked:
                        yield from parse_perf_script(read_lines(unpacked), tally)
                else:
                    yield from parse_perf_script(read_lines(raw), tally)
        except (EOFError, zlib.error, OSError) as error:  # gzip.BadGzipFile is an OSError
            raise LogUnreadableError(f"{self.path}: damaged after line {tally.lines}: {error}") from error


def read_lines(file: IO[bytes] | gzip.GzipFile) -> Iterator[bytes]:
    """Yield lines; of one that is too long only the beginning, without a newline."""
    while line := file.readline(MOST_LINE_BYTES):
        yield line
        while len(line) == MOST_LINE_BYTES and not line.endswith(b"\n"):
            line = file.readline(MOST_LINE_BYTES)
