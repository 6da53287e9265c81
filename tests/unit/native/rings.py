"""Rings as the kernel fills them, in memory of this process; include/uapi/linux/perf_event.h says what is where."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from balancerd.native import PerfKind, ThreadRings
from balancerd.native._core import ffi

PAGE = 4096
SAMPLE, LOST, THROTTLE, UNTHROTTLE, EXIT = 9, 2, 5, 6, 4
KERNEL, USER = 1, 2
DATA_HEAD_AT = 1024  # in struct perf_event_mmap_page; data_tail is next
REGISTERS = 15
ABI_64 = 2


def record(kind: int, body: bytes, *, misc: int = 0) -> bytes:
    return struct.pack("=IHH", kind, misc, 8 + len(body)) + body


def registers_record(
    registers: list[int], *, tid: int = 1, seconds: float = 1.0, cpu: int = 0, misc: int = USER, ip: int = 0
) -> bytes:
    """A sample with so many registers as given, and zeros in the others."""
    values = registers + [0] * (REGISTERS - len(registers))
    head = struct.pack("=QIIQIIQ", ip, tid, tid, round(seconds * 1e9), cpu, 0, ABI_64)
    return record(SAMPLE, head + struct.pack(f"={REGISTERS}Q", *values), misc=misc)


def fault_record(address: int, *, tid: int = 1, seconds: float = 1.0, cpu: int = 0) -> bytes:
    return record(SAMPLE, struct.pack("=IIQQII", tid, tid, round(seconds * 1e9), address, cpu, 0), misc=USER)


def memory_record(
    address: int,
    data_src: int,
    *,
    tid: int = 1,
    seconds: float = 1.0,
    cpu: int = 0,
    cycles: int = 0,
    frame: int | None = None,
    misc: int = USER,
) -> bytes:
    """A sample of a load or store, in the order of perf_event_open(2); the frame's address is the last field."""
    body = struct.pack("=IIQQIIQQ", tid, tid, round(seconds * 1e9), address, cpu, 0, cycles, data_src)
    return record(SAMPLE, body + (b"" if frame is None else struct.pack("=Q", frame)), misc=misc)


@contextmanager
def filled(records: bytes, *, kind: PerfKind, data_bytes: int = 4 * PAGE, tail: int = 0) -> Iterator[ThreadRings]:
    """Rings of one thread, into which the kernel wrote these records from `tail` on."""
    rings = ThreadRings(kind, frequency_hz=100)
    memory = ffi.new("uint64_t[]", (PAGE + data_bytes) // 8)
    view: Any = ffi.buffer(memory)
    view[DATA_HEAD_AT : DATA_HEAD_AT + 16] = struct.pack("=QQ", tail + len(records), tail)
    for at in range(0, len(records), 8):
        to = PAGE + (tail + at) % data_bytes
        view[to : to + 8] = records[at : at + 8]
    ring = rings._data[0]
    ring.map, ring.map_bytes, ring.data_bytes, ring.fd = memory, PAGE + data_bytes, data_bytes, -1
    ring.tid, ring.kind, ring.first_is_touch = 1, kind, kind == PerfKind.FAULTS
    rings._at[1] = 0
    yield rings
    assert struct.unpack("=QQ", view[DATA_HEAD_AT : DATA_HEAD_AT + 16]) == (tail + len(records),) * 2 or not rings._at
