"""Reads a trace file, line by line; of one that broke off, all that is whole.

Owns what a file may look like. It must not know what is done with the ticks.
"""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from balancerd.model.copying import Copying
from balancerd.model.sample import PlacementSample
from balancerd.model.topology import Topology
from balancerd.trace.codec import decode
from balancerd.trace.form import FORMAT, MISUNDERSTOOD, VERSION, TraceError
from balancerd.trace.records import LineReader, TickRecord

T = TypeVar("T")

LONGEST_LINE_BYTES: Final = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What the first line tells. `config` is plain data, for the loader."""

    balancerd: str
    kernel: tuple[int, int]
    own_pid: int
    config: dict[str, Any]
    topology: Topology | None
    copying: Copying = field(default_factory=Copying)
    """How fast memory had moved when it began."""


class TraceReader:
    """One pass over a file: the header at once, then ticks. Raises TraceError for what is no trace, and OSError.

    After the last tick `ended` is what the line of the end says, None when there is none; `broken` is why reading
    ended before the file did, None when it did not.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = gzip.open(path, "rb")  # noqa: SIM115 -- closed by close()
        self._reader = LineReader()
        self._number = 0
        self.ended: str | None = None
        self.broken: str | None = None
        try:
            self.header = self._read_header()
        except BaseException:
            self._file.close()
            raise
        self.known: tuple[PlacementSample, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._file.close()

    def ticks(self) -> Iterator[TickRecord]:
        """Yield the ticks; `known` is there with the first. Raises TraceError, which names the file and the line."""
        lines = self._lines()
        first = next(lines, None)
        if first is None:
            return
        self.known = self._understood(self._reader.known, first)
        for line in lines:
            if line.startswith('{"end":'):
                self.ended = self._understood(self._reader.end, line)
                return
            yield self._understood(self._reader.tick, line)

    def _understood(self, read: Callable[[str], T], line: str) -> T:
        try:
            return read(line)
        except TraceError as error:
            raise TraceError(f"{self._path}:{self._number}: {error}") from error

    def _read_header(self) -> Header:
        line = next(self._lines(), None)
        try:
            told = json.loads(line or "")
            if told["format"] != FORMAT:
                raise TraceError(f"{self._path} is no trace of balancerd")
            if told["version"] != VERSION:
                raise TraceError(
                    f"{self._path} has version {told['version']!s:.40} of the format, and this is balancerd for "
                    f"version {VERSION}: replay it with balancerd {told.get('balancerd')!s:.40}"
                )
            topology = told["topology"]
            return Header(
                balancerd=str(told["balancerd"]),
                kernel=(int(told["kernel"][0]), int(told["kernel"][1])),
                own_pid=int(told["own_pid"]),
                config=dict(told["config"]),
                topology=None if topology is None else decode(Topology, topology),
                copying=decode(Copying, told.get("copying", {})),
            )
        except MISUNDERSTOOD as error:
            why = self.broken or "its first line is no header"
            raise TraceError(f"{self._path} is no trace of balancerd: {why}") from error

    def _lines(self) -> Iterator[str]:
        """Yield whole lines; what cannot be unpacked, or has no end, ends it."""
        while True:
            try:
                line = self._file.readline(LONGEST_LINE_BYTES)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                self.broken = f"it breaks off: {error}"
                return
            self._number += 1
            if not line:
                return
            if not line.endswith(b"\n"):
                self.broken = "its last line is not whole"
                return
            yield line.decode("ascii", "replace")
