"""Typed Python functions over maps.c, sample.c and numa_maps.c: the mappings of a process, and where some pages are.

Owns the crossing, as binding.py does. A process may have tens of thousands of mappings: they stay in C, and only those
that somebody asks for become Python objects. Every call releases the GIL.
"""

import errno
import struct
from collections.abc import Iterable
from typing import Any

from balancerd.native._core import ffi, lib
from balancerd.native.binding import check
from balancerd.native.records import Device, Stratum, Tally, VmaRow, VmaTally

_VMA = struct.Struct("=QQQIIIBBBx")
"""struct bal_vma, which has no holes but the last byte."""


class MalformedTextError(ValueError):
    """A text that does not read as documented, at a line counted from 1 (0: not known which)."""

    def __init__(self, line_number: int) -> None:
        self.line_number = line_number
        super().__init__(f"line {line_number} does not read as documented")


class VmaTable:
    """All mappings of a process that have any permission, ascending; parse_maps() makes it."""

    __slots__ = ("_bytes", "_length", "_names", "_text", "data", "maps")

    def __init__(self, text: bytes, data: Any, maps: Any) -> None:
        self.data: Any = data
        self.maps: Any = maps
        self._length = int(maps.n_vmas)
        self._bytes = ffi.buffer(data)
        self._text = text
        self._names: dict[bytes, str] = {b"": ""}

    def __len__(self) -> int:
        return self._length

    def row(self, index: int) -> VmaRow:
        r"""Return one mapping. Names stay as the kernel writes them, newlines as "\012", with " (deleted)"."""
        if not 0 <= index < self._length:
            raise IndexError(index)
        start, end, inode, device, name_at, name_bytes, kind, flags, stratum = _VMA.unpack_from(
            self._bytes, index * _VMA.size
        )
        raw = self._text[name_at : name_at + name_bytes]
        if raw not in self._names:
            self._names[raw] = raw.decode("utf-8", "backslashreplace")
        return VmaRow(
            start=start,
            end=end,
            kind=kind,
            is_shared=bool(flags & lib.BAL_SHARED),
            is_executable=bool(flags & lib.BAL_EXECUTABLE),
            is_program=bool(flags & lib.BAL_PROGRAM),
            is_guarded=bool(flags & lib.BAL_GUARDED),
            is_own=bool(flags & lib.BAL_OWN),
            name=self._names[raw],
            device=device,
            inode=inode,
            stratum=None if stratum == lib.BAL_NO_STRATUM else stratum,
        )

    def strata(self) -> tuple[Stratum, ...]:
        """Return the strata that have any page, ascending by index."""
        pages, unit_bytes = self.maps.pages, self.maps.unit_bytes
        return tuple(
            Stratum(index=i, units=pages[i] * lib.BAL_PAGE_BYTES // unit_bytes[i], unit_bytes=unit_bytes[i])
            for i in range(lib.BAL_STRATA)
            if pages[i]
        )


def parse_maps(text: bytes, devices: Iterable[Device] = (), *, huge_bytes: int = 0) -> VmaTable:
    """Parse the text of /proc/PID/maps. Mappings without any permission are left out.

    Hugetlb pages are as large as their device says, or else huge_bytes (0: they are asked for as base pages).
    Raises MalformedTextError.
    """
    rows = [(device.device, device.kind, device.page_bytes) for device in devices]
    packed = ffi.new("struct bal_device[]", rows)
    capacity = text.count(b"\n") + 1
    data = ffi.new("struct bal_vma[]", capacity)
    maps = ffi.new("struct bal_maps *")
    rc = lib.bal_parse_maps(text, len(text), packed, len(rows), huge_bytes, data, capacity, maps)
    if rc == -errno.EBADMSG:
        raise MalformedTextError(maps.error_line)
    check(rc, None)
    return VmaTable(text, data, maps)


def sample(pid: int, table: VmaTable, *, n_nodes: int, strata: Iterable[int], questions: int, seed: int) -> Tally:
    """Ask which node holds so many units of some strata, chosen by chance: two in each cell of as many units each.

    A unit is a base page, or a page of hugetlb strata; all strata must have the same. No fewer questions than units
    ask for every one. n_nodes is the highest node id + 1. Raises OSError: ESRCH (no such process), EPERM (no ptrace
    access), EINVAL (an argument, or a process without memory of its own).
    """
    asked = set(strata)
    capacity = max(1, min(questions, len(table)) + 1)
    rows = ffi.new("uint64_t[]", capacity * (n_nodes + 3))
    ret = ffi.new("struct bal_tally *")
    mask = sum(1 << i for i in asked)
    rc = lib.bal_sample(
        pid, table.data, len(table), table.maps, mask, questions, seed % (1 << 64), n_nodes, rows, capacity, ret
    )
    check(rc, pid)
    return _tally(ret, rows, n_nodes)


def count_numa_maps(text: bytes, table: VmaTable, *, n_nodes: int) -> Tally:
    """Count the base pages of every mapping by node from the text of /proc/PID/numa_maps, which is exact.

    `rows` has the mappings that hold any page; what is absent is not told. Raises MalformedTextError.
    """
    capacity = max(1, len(table))
    rows = ffi.new("uint64_t[]", capacity * (n_nodes + 3))
    ret = ffi.new("struct bal_tally *")
    rc = lib.bal_count_numa_maps(text, len(text), table.data, len(table), n_nodes, rows, capacity, ret)
    if rc == -errno.EBADMSG:
        raise MalformedTextError(0)
    check(rc, None)
    return _tally(ret, rows, n_nodes)


def _tally(ret: Any, rows: Any, n_nodes: int) -> Tally:
    width = n_nodes + 3
    cells = ffi.unpack(rows, ret.n_rows * width) if ret.n_rows else []
    return Tally(
        asked_units=ret.asked,
        present_units=ret.present,
        units=ret.units,
        on_node=tuple(ffi.unpack(ret.on_node, n_nodes)) if n_nodes else (),
        differing_pairs=tuple(ffi.unpack(ret.differ, n_nodes)) if n_nodes else (),
        lone_pairs=tuple(ffi.unpack(ret.alone, n_nodes)) if n_nodes else (),
        rows=tuple(
            VmaTally(
                vma=cells[at],
                on_node=tuple(cells[at + 1 : at + 1 + n_nodes]),
                absent=cells[at + 1 + n_nodes],
                other=cells[at + 2 + n_nodes],
            )
            for at in range(0, len(cells), width)
        ),
        seconds=ret.seconds,
    )
