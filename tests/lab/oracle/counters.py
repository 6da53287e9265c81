"""What the oracle counted: the plugin's file as typed readings, and the difference of two of them.

Owns the file's format, which oracle.c writes. Must not know what a reading is good for: shares and costs are for
whoever asks. The file starts with the machine; reading after reading follows, each counted since the machine's start:

    oracle 1
    cpus 0 1                                       node of each CPU
    distances 10 21 21 10                          row by row
    caches 32 1024                                 KiB of each CPU's filter and of each node's model; 0 is none
    mark 7 12.345678 0 0                           or tick, exit; number, seconds, self check, page accesses lost
    cpu 0 user 900 80 1 0 30 10 5 2                accesses lookups io unknown, reads by node, writes by node
    page 7f0010000 12 0                            with pages=1: its number in hexadecimal, accesses by node of the CPU
    .
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from balancerd.kernel.errors import ParseError

Kind = Literal["mark", "tick", "exit"]
PAGE_BYTES = 4096
LINE_BYTES = 64  # what one read or write in Counts moves
CLASSES = {"user": False, "kernel": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What one CPU did in one class, since the machine's start or between two readings.

    `accesses` are the loads and stores of instructions; `lookups` those that missed the CPU's first-level filter. `io`
    and `unknown` are lookups outside of memory, and at addresses of no node (firmware); they are in no other count.
    Reads and writes are what the caches let through to memory, in lines of 64 bytes, by the node of the memory.
    """

    accesses: int
    lookups: int
    io: int
    unknown: int
    reads_by_node: tuple[int, ...]
    writes_by_node: tuple[int, ...]

    def __add__(self, other: "Counts") -> "Counts":
        return self._with(other, 1)

    def __sub__(self, other: "Counts") -> "Counts":
        return self._with(other, -1)

    def _with(self, other: "Counts", sign: int) -> "Counts":
        return Counts(
            accesses=self.accesses + sign * other.accesses,
            lookups=self.lookups + sign * other.lookups,
            io=self.io + sign * other.io,
            unknown=self.unknown + sign * other.unknown,
            reads_by_node=_joined(self.reads_by_node, other.reads_by_node, sign),
            writes_by_node=_joined(self.writes_by_node, other.writes_by_node, sign),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """All counters at one moment.

    `number` is the marker's, 0 for ticks and the exit. `at_seconds` is host time since the start of QEMU: its
    differences are those of the guest's CLOCK_MONOTONIC, unless that counts instructions. `counts` are by CPU and
    whether the code was the kernel's; the kernel's are there only when it was counted. `pages`: user accesses that the
    caches let through, by the virtual address of the page and there by the node of the CPU; empty unless asked for, and
    in markers only. One address of two processes is one page. `pages_lost` are accesses that found no room there.
    """

    kind: Kind
    number: int
    at_seconds: float
    counts: Mapping[tuple[int, bool], Counts]
    pages: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    pages_lost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The machine as the plugin was told: `node_of_cpu` by CPU, and what stood between CPUs and memory (0: nothing)."""

    node_of_cpu: tuple[int, ...]
    distances: tuple[tuple[int, ...], ...]
    l1_kib: int
    llc_kib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """A whole file. `is_cut`: it ends in the middle of a reading, which is left out; the machine was killed."""

    header: Header
    readings: tuple[Reading, ...]
    is_cut: bool

    def mark(self, number: int) -> Reading | None:
        """Return the first marker of this number; None when it was never executed."""
        return next((it for it in self.readings if it.kind == "mark" and it.number == number), None)

    def ticks(self) -> tuple[Reading, ...]:
        """Return the time series."""
        return tuple(it for it in self.readings if it.kind == "tick")


def difference(a: Reading, b: Reading) -> Reading:
    """Return what happened from `a` to the later `b`: counts, pages and seconds; kind and number are those of `b`.

    Pages that nobody used in between are left out. Raises ValueError when the readings are of different machines.
    """
    if a.counts.keys() != b.counts.keys():
        raise ValueError("the readings are of different machines")
    pages = {at: _joined(n, a.pages[at], -1) if at in a.pages else n for at, n in b.pages.items()}
    return Reading(
        kind=b.kind,
        number=b.number,
        at_seconds=b.at_seconds - a.at_seconds,
        counts={source: counts - a.counts[source] for source, counts in b.counts.items()},
        pages={at: n for at, n in pages.items() if any(n)},
        pages_lost=b.pages_lost - a.pages_lost,
    )


def total(counts: Iterable[Counts]) -> Counts:
    """Return the sum. Raises ValueError for nothing, since nobody knows how many nodes that would have."""
    everything = tuple(counts)
    if not everything:
        raise ValueError("no counts to add up")
    return sum(everything[1:], everything[0])


def read_counters(path: Path) -> Counters:
    """Read a plugin's file; raises OSError and ParseError."""
    return parse_counters(path.read_text(encoding="ascii", errors="replace"), str(path))


def parse_counters(text: str, path: str) -> Counters:
    """Parse a plugin's file. Raises ParseError with `path` and the line, also when the plugin's self check failed.

    A last line without its end, and a last reading without its final dot, are left out and told by `is_cut`.
    """
    *whole, rest = text.split("\n")
    lines = _Lines(whole, path)
    header = _header(lines)
    readings: list[Reading] = []
    n_nodes = len(header.distances)
    is_cut = bool(rest)
    for words in lines:
        reading = _reading(words, lines, n_nodes)
        if reading is None:
            is_cut = True
        else:
            readings.append(reading)
    return Counters(header=header, readings=tuple(readings), is_cut=is_cut)


class _Lines:
    """The lines' words, one line after the other, and where an error is."""

    def __init__(self, lines: list[str], path: str) -> None:
        self._lines = lines
        self._path = path
        self._number = 0

    def __iter__(self) -> Iterator[list[str]]:
        while self._number < len(self._lines):
            self._number += 1
            yield self._lines[self._number - 1].split(" ")

    def error(self, what: str) -> ParseError:
        line = self._lines[self._number - 1] if self._number else ""
        return ParseError(self._path, self._number, line.encode(), what)

    def numbers(self, words: list[str]) -> tuple[int, ...]:
        if not all(word.isascii() and word.isdigit() for word in words):
            raise self.error("counts are digits")
        return tuple(map(int, words))


def _header(lines: _Lines) -> Header:
    fields = {}
    for name, words in zip(("oracle", "cpus", "distances", "caches"), lines, strict=False):
        if words[0] != name:
            raise lines.error(f"this line should be {name!r}")
        fields[name] = lines.numbers(words[1:])
    if len(fields) < 4:
        raise lines.error("the file ends within its first four lines")
    n_nodes = max(fields["cpus"], default=-1) + 1
    while n_nodes * n_nodes < len(fields["distances"]):
        n_nodes += 1  # nodes without CPUs
    if fields["oracle"] != (1,) or len(fields["distances"]) != n_nodes * n_nodes or len(fields["caches"]) != 2:
        raise lines.error("the first four lines are not those of format 1")
    rows = [fields["distances"][at : at + n_nodes] for at in range(0, n_nodes * n_nodes, n_nodes)]
    l1_kib, llc_kib = fields["caches"]
    return Header(node_of_cpu=fields["cpus"], distances=tuple(rows), l1_kib=l1_kib, llc_kib=llc_kib)


def _reading(words: list[str], lines: _Lines, n_nodes: int) -> Reading | None:
    """One reading whose first line is `words`; None when the file ends before its dot."""
    kind, number, at_seconds, n_wrong, pages_lost = _reading_line(words, lines)
    counts: dict[tuple[int, bool], Counts] = {}
    pages: dict[int, tuple[int, ...]] = {}
    for line in lines:
        match line:
            case ["."]:
                if n_wrong:
                    raise lines.error(f"the plugin's short way to addresses was wrong {n_wrong} times")
                return Reading(
                    kind=kind, number=number, at_seconds=at_seconds, counts=counts, pages=pages, pages_lost=pages_lost
                )
            case ["cpu", cpu, code, *rest] if code in CLASSES and len(rest) == 4 + 2 * n_nodes:
                accesses, lookups, io, unknown, *by_node = lines.numbers(rest)
                counts[lines.numbers([cpu])[0], CLASSES[code]] = Counts(
                    accesses=accesses,
                    lookups=lookups,
                    io=io,
                    unknown=unknown,
                    reads_by_node=tuple(by_node[:n_nodes]),
                    writes_by_node=tuple(by_node[n_nodes:]),
                )
            case ["page", page, *rest] if len(rest) == n_nodes:
                try:
                    address = int(page, 16) * PAGE_BYTES
                except ValueError:
                    raise lines.error("a page's number is hexadecimal") from None
                pages[address] = lines.numbers(rest)
            case _:
                raise lines.error("no line of a reading")
    return None


def _reading_line(words: list[str], lines: _Lines) -> tuple[Kind, int, float, int, int]:
    for kind in get_args(Kind):
        if words[0] == kind and len(words) == 5:
            number, n_wrong, pages_lost = lines.numbers([words[1], *words[3:]])
            seconds, _, decimals = words[2].partition(".")
            lines.numbers([seconds, decimals])
            return kind, number, float(words[2]), n_wrong, pages_lost
    raise lines.error("a reading starts with mark, tick or exit and four numbers")


def _joined(a: tuple[int, ...], b: tuple[int, ...], sign: int) -> tuple[int, ...]:
    return tuple(x + sign * y for x, y in zip(a, b, strict=True))
