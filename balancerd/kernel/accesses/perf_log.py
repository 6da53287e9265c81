"""What `perf script` prints of memory accesses, taken apart. Pure, and standard library only: the client uses it, too.

The lines are those of `perf script -F pid,tid,cpu,time,addr,phys_addr,data_src,weight`, see perf-script(1): whatever
the order after -F, perf prints in this one. Only pid, cpu and addr are needed; what stands behind the address is looked
at only to know a line that was cut off. Names of programs are not accepted: a process chooses its own, and could pass
for another one's sample. It must not know what becomes of samples.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

BATCH_SAMPLES = 8192

MOST_LINE_BYTES = 1024
"""No line that perf prints with these fields is longer; a longer one is not read to its end."""

TOLD_LINES = 20
"""So many lines that are no samples are told one by one; all of them are counted."""

KERNEL_START = 1 << 63
"""From here on addresses are the kernel's."""

LOWEST_ADDRESS = 1 << 16
"""Below nothing is mapped (vm.mmap_min_addr): perf prints 0 for a sample without an address."""

COMMAND = "perf script -F pid,tid,cpu,time,addr,phys_addr,data_src,weight"

_SAMPLE = re.compile(
    rb"\s*(-?\d{1,7})(?:/(-?\d{1,7}))?\s+\[(\d{1,5})\]\s+(?:(\d{1,12})\.(\d{6,9}):\s+)?(?:[^\s:]\S*:\s+)?([0-9a-f]{1,16})"
    rb"((?:\s+[0-9a-f]+\s+\|OP [^\n]*\|[^|\n]*?)?)((?:\s+[0-9a-f]+)*)\s*\n"
)
_LOST = re.compile(rb"\s*(?:.*\s)?PERF_RECORD_LOST(?:_SAMPLES)?\s+(?:lost\s+)?(\d+)\s*\n")
_CLOCK = re.compile(rb"# clockid: ([a-z_]+) \(\d+\)\s*\n")


class LogSample(NamedTuple):
    """One access: `seconds` on the clock of the log, None when it tells no time. A tuple, as there are millions."""

    pid: int
    tid: int
    cpu: int
    seconds: float | None
    address: int

    def in_nanoseconds(self) -> tuple[int, int, int, int, int]:
        """Return the same with nanoseconds in place of seconds; 0 stands for no time."""
        return (self.pid, self.tid, self.cpu, round((self.seconds or 0.0) * 1e9), self.address)


Batch: TypeAlias = list[LogSample]


@dataclass(frozen=True, slots=True, kw_only=True)
class OddLine:
    """A line that is no sample, and why."""

    path: str
    number: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.number}: {self.what}"


@dataclass(slots=True, kw_only=True)
class LogTally:
    """What became of the lines of a log, counted while it is read.

    `lines` is all, `comments` those with # and empty ones. `kernel` and `without_address` are samples that tell nothing
    of a process's memory. `clock` is the clock's name from perf's header, if that was printed, too.
    """

    path: str
    lines: int = 0
    comments: int = 0
    samples: int = 0
    kernel: int = 0
    without_address: int = 0
    truncated: int = 0
    foreign: int = 0
    lost_samples: int = 0
    first_seconds: float | None = None
    last_seconds: float | None = None
    clock: str | None = None
    odd_lines: list[OddLine] = field(default_factory=list)
    samples_by_pid: Counter[int] = field(default_factory=Counter)

    @property
    def odd(self) -> int:
        """How many lines are neither samples nor comments."""
        return self.truncated + self.foreign

    def tell(self, what: str) -> None:
        """Keep the line at hand as one that is no sample, if there is room."""
        if len(self.odd_lines) < TOLD_LINES:
            self.odd_lines.append(OddLine(path=self.path, number=self.lines, what=what))

    def objection(self) -> str | None:
        """Return why a log that was read to its end is not to be used, None when it is."""
        seen = self.samples + self.kernel + self.without_address
        if not seen:
            return f"{self.path}: no samples in {self.lines} lines; print them with {COMMAND}"
        if self.odd > seen:
            return f"{self.path}: {self.odd} of {self.lines} lines are no samples; print them with {COMMAND}"
        return None


class _Shape(NamedTuple):
    """Which fields a sample has: all of a log have the same. `width` counts only where the address stands last."""

    has_time: bool
    pipes: int
    behind: int
    width: int

    def is_cut(self, whole: "_Shape") -> bool:
        """Return whether a line with this shape is the beginning of one with the shape `whole`."""
        return self.pipes < whole.pipes or self.behind < whole.behind or self.width < whole.width


def parse_perf_script(lines: Iterable[bytes], tally: LogTally) -> Iterator[Batch]:
    """Yield the samples of user memory, in batches; count in `tally` what the lines are.

    Lines end with a newline; without, the line is cut off. The first sample tells which fields a line has.
    """
    batch: Batch = []
    shape: _Shape | None = None
    for line in lines:
        tally.lines += 1
        match = _SAMPLE.fullmatch(line)
        if match is None:
            _note_other(line, tally)
            continue
        pid, tid, cpu, whole, fraction, address, source, behind = match.groups()
        found = _Shape(
            whole is not None,
            source.count(b"|"),
            len(behind.split()),
            0 if source or behind else match.end(6) - (match.end(5) if whole else match.end(3)),
        )
        if shape is None:
            shape = found
        elif found.is_cut(shape) or found.has_time != shape.has_time:
            tally.truncated += 1
            tally.tell("cut off: it has fewer fields than the first sample")
            continue
        at = int(address, 16)
        if at >= KERNEL_START:
            tally.kernel += 1
            continue
        if at < LOWEST_ADDRESS or int(pid) <= 0:
            tally.without_address += 1
            continue
        seconds = None if whole is None else int(whole) + int(fraction) / 10 ** len(fraction)
        _note_sample(int(pid), seconds, tally)
        batch.append(LogSample(int(pid), int(tid or pid), int(cpu), seconds, at))
        if len(batch) >= BATCH_SAMPLES:
            yield batch
            batch = []
    if batch:
        yield batch


def _note_sample(pid: int, seconds: float | None, tally: LogTally) -> None:
    tally.samples += 1
    tally.samples_by_pid[pid] += 1
    if seconds is not None:
        tally.first_seconds = seconds if tally.first_seconds is None else min(tally.first_seconds, seconds)
        tally.last_seconds = seconds if tally.last_seconds is None else max(tally.last_seconds, seconds)


def _note_other(line: bytes, tally: LogTally) -> None:
    lost = _LOST.fullmatch(line)
    clock = _CLOCK.fullmatch(line)
    if lost is not None:
        tally.lost_samples += int(lost[1])
    elif clock is not None:
        tally.clock = clock[1].decode("ascii")
        tally.comments += 1
    elif not line.strip() or line.startswith(b"#"):
        tally.comments += 1
    elif not line.endswith(b"\n"):
        tally.truncated += 1
        tally.tell("cut off: too long" if len(line) >= MOST_LINE_BYTES else "cut off: the log ends within it")
    else:
        tally.foreign += 1
        tally.tell("no sample of a memory access")
