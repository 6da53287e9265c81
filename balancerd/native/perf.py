"""Typed Python functions over perf.c: perf events of threads, whose samples go into an AccessTable.

Owns the descriptors and rings of the threads of one process, and closes them. Any, the type of C data, stops here. Must
not know policies, the model, or which threads deserve it. Needs perf_event_open(2), at kernel.perf_event_paranoid 2
and above with CAP_PERFMON. Every call releases the GIL.
"""

import os
from collections.abc import Iterable
from typing import Any

from balancerd.native._core import ffi, lib
from balancerd.native.access_records import MemoryEvent, PerfKind, PerfReading
from balancerd.native.accessing import AccessTable


class AddressRanges:
    """Address ranges [start, end) in which a register counts as an access: the large mappings of data, packed once.

    Give neither stacks nor code, which registers point into all the time. Order does not matter; ranges that touch or
    overlap are one.
    """

    __slots__ = ("_length", "data")

    def __init__(self, ranges: Iterable[tuple[int, int]]) -> None:
        joined: list[list[int]] = []
        for start, end in sorted(ranges):
            if joined and start <= joined[-1][1]:
                joined[-1][1] = max(joined[-1][1], end)
            elif start < end:
                joined.append([start, end])
        self.data: Any = ffi.new("struct bal_span[]", [tuple(span) for span in joined])
        self._length = len(joined)

    def __len__(self) -> int:
        return self._length


class ThreadRings:
    """A perf event and its ring of records for each opened thread, all of one kind.

    REGISTERS: frequency_hz samples of each second that a thread runs; FAULTS: every page fault, and frequency_hz says
    nothing; MEMORY: loads and stores as the events say, all in one ring, one sample for each `period` of them, or for
    `store_period` where an event is of stores alone. A ring takes ring_pages pages, a power of two, and one more; a
    sample of registers takes 168 bytes, one of a fault 40, one of memory 64, so that 8 pages hold nearly two seconds at
    100 Hz of registers. Samples that find a ring full are lost, and counted.
    With user_only nothing is sampled while the kernel works for the thread, which leaves out nearly all of a thread
    that reads and writes files; it then needs no CAP_PERFMON at kernel.perf_event_paranoid 2 for one's own processes.

    With first_is_touch the first fault of a page that the table does not know is its first touch. Hint faults of a
    process that does not grow need that not: a scan of the kernel's gives one fault a page, and may be a minute apart.
    It holds for all that read() takes from the rings, and may be changed between two reads.
    """

    __slots__ = (
        "_at",
        "_capacity",
        "_data",
        "_user_only",
        "events",
        "first_is_touch",
        "frequency_hz",
        "kind",
        "period",
        "ring_pages",
        "store_period",
    )

    def __init__(
        self,
        kind: PerfKind,
        *,
        frequency_hz: int = 1,
        ring_pages: int = 8,
        user_only: bool = False,
        first_is_touch: bool = True,
        events: tuple[MemoryEvent, ...] = (),
        period: int = 1 << 16,
        store_period: int = 1 << 16,
    ) -> None:
        self.kind = kind
        self.frequency_hz = frequency_hz
        self.events = events
        self.period = period
        self.store_period = store_period
        self.ring_pages = ring_pages
        self._user_only = user_only
        self.first_is_touch = first_is_touch
        self._at: dict[int, int] = {}
        self._capacity = 16
        self._data: Any = ffi.new("struct bal_ring[]", self._capacity)

    def __len__(self) -> int:
        return len(self._at)

    @property
    def tids(self) -> frozenset[int]:
        """The threads that are open; those that ended stay until drop() is called for them."""
        return frozenset(self._at)

    def open(self, tid: int) -> None:
        """Begin to sample a thread; nothing happens if it is open already.

        Raises OSError: ESRCH (it is gone), EACCES or EPERM (no CAP_PERFMON; or a seccomp filter; or, EPERM at the ring,
        more locked memory than kernel.perf_event_mlock_kb allows), EINVAL (frequency above
        kernel.perf_event_max_sample_rate, ring_pages no power of two), EMFILE, ENOENT or ENOSYS (no perf in the
        kernel).
        """
        if tid in self._at:
            return
        if len(self._at) == self._capacity:
            before, self._capacity = self._data, 2 * self._capacity
            self._data = ffi.new("struct bal_ring[]", self._capacity)
            ffi.memmove(self._data, before, len(self._at) * ffi.sizeof("struct bal_ring"))
        at = len(self._at)
        flags = self._user_only, self.first_is_touch
        events = [self._pack(event) for event in self.events]
        args = ffi.new(
            "struct bal_ring_args *",
            (tid, self.kind, self.frequency_hz, self.ring_pages, *flags, len(events), events),
        )
        _check(lib.bal_ring_open(args, self._data + at), tid)
        self._at[tid] = at

    def drop(self, tid: int) -> None:
        """End sampling a thread. What its ring still holds is gone: read() before. Unknown threads are none."""
        at = self._at.pop(tid, None)
        if at is None:
            return
        lib.bal_ring_close(self._data + at)
        if at != len(self._at):  # the last one takes its place
            last = self._data[len(self._at)]
            ffi.memmove(self._data + at, ffi.addressof(last), ffi.sizeof("struct bal_ring"))
            self._at[int(last.tid)] = at

    def set_frequency(self, frequency_hz: int) -> None:
        """Change the rate of all threads, open ones and later ones. Threads that ended do not mind."""
        self.frequency_hz = frequency_hz
        for at in self._at.values():
            _check(lib.bal_ring_rate(self._data + at, frequency_hz), int(self._data[at].tid))

    def set_periods(self, period: int, store_period: int) -> None:
        """Change how many loads, or both, and how many stores pass for each sample, of all threads."""
        self.period, self.store_period = period, store_period
        for at in self._at.values():
            for index, event in enumerate(self.events):
                if not event.is_auxiliary:
                    rc = lib.bal_ring_period(self._data + at, index, store_period if event.is_stores else period)
                    _check(rc, int(self._data[at].tid))

    def read(self, table: AccessTable, ranges: AddressRanges, *, pid: int | None = None) -> PerfReading:
        """Empty all rings into a table; what points nowhere into the ranges is left out. Faults need ranges, too.

        With the pid of the threads, their code is read where they were sampled (on x86-64; it takes ptrace access, or
        nothing comes of it). Where a thread waits for memory, the instruction before tells the very address, also where
        the registers hold but the start of an array and an index. Costs a microsecond or two for each different place.
        """
        ret = ffi.new("struct bal_drain *")
        for at in self._at.values():
            self._data[at].first_is_touch = self.kind is PerfKind.FAULTS and self.first_is_touch
        operands = ffi.NULL if pid is None else ffi.new("struct bal_operand[]", lib.BAL_OPERANDS)
        data, n = self._data, len(self._at)
        lib.bal_rings_drain(data, n, ranges.data, len(ranges), pid or 0, operands, table.data, ret)
        return PerfReading(
            samples=ret.samples,
            with_access=ret.with_access,
            elsewhere=ret.elsewhere,
            repeated=ret.repeated,
            no_registers=ret.no_registers,
            no_address=ret.no_address,
            near=ret.near,
            far=ret.far,
            stores=ret.stores,
            framed=ret.framed,
            cycles=ret.cycles,
            busiest=ret.busiest,
            in_kernel=ret.in_kernel,
            accesses=ret.accesses,
            exact=ret.exact,
            code_reads=ret.code_reads,
            lost=ret.lost,
            cut=ret.cut,
            throttled=ret.throttled,
            unthrottled=ret.unthrottled,
            foreign=ret.foreign,
            duration_seconds=ret.seconds,
        )

    def close(self) -> None:
        """Close everything. Threads may be opened again afterwards."""
        for tid in tuple(self._at):
            self.drop(tid)

    def _pack(self, event: MemoryEvent) -> tuple[object, ...]:
        period = self.store_period if event.is_stores else self.period
        return (event.configs, period, event.pmu_type, event.precise, event.is_auxiliary)


def probe(kind: PerfKind, tid: int = 0, *, user_only: bool = False, events: tuple[MemoryEvent, ...] = ()) -> None:
    """Raise the OSError that keeps a thread from being sampled, 0: the calling one; see ThreadRings.open()."""
    rings = ThreadRings(kind, ring_pages=1, user_only=user_only, events=events)
    try:
        rings.open(tid)
    finally:
        rings.close()


def _check(rc: int, tid: int) -> None:
    if rc < 0:
        raise OSError(-rc, os.strerror(-rc), f"thread {tid}")
