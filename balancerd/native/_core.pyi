# What cffi's generated module offers, as far as binding.py uses it. C structures are Any: they stop in this package.
from typing import Any, Protocol

class _Ffi(Protocol):
    NULL: Any

    def new(self, cdecl: str, init: object = ...) -> Any: ...
    def unpack(self, cdata: Any, length: int) -> list[int]: ...
    def buffer(self, cdata: Any, size: int = ...) -> Any: ...
    def string(self, cdata: Any) -> bytes: ...
    def memmove(self, dest: Any, source: Any, n: int) -> None: ...
    def sizeof(self, cdata: Any) -> int: ...
    def from_buffer(self, source: object) -> Any: ...
    def cast(self, cdecl: str, value: Any) -> Any: ...
    def addressof(self, cdata: Any) -> Any: ...
    def release(self, cdata: Any) -> None: ...

class _Lib(Protocol):
    BAL_PAGE_BYTES: int
    BAL_NODES: int
    BAL_ERRNOS: int
    BAL_CALL_TIMES: int
    BAL_SHARED: int
    BAL_EXECUTABLE: int
    BAL_PROGRAM: int
    BAL_GUARDED: int
    BAL_OWN: int
    BAL_STRATA: int
    BAL_NO_STRATUM: int
    BAL_ACCESS_SLOTS: int
    BAL_ACCESS_UNIT: int
    BAL_OPERANDS: int
    BAL_CODE_BEFORE: int
    BAL_EVENTS: int

    def bal_placement(
        self,
        pid: int,
        ranges: Any,
        n_ranges: int,
        samples: int,
        phase: float,
        n_nodes: int,
        per_range: Any,
        ret: Any,
        /,
    ) -> int: ...
    def bal_parse_maps(
        self,
        text: bytes,
        length: int,
        devices: Any,
        n_devices: int,
        huge_bytes: int,
        vmas: Any,
        capacity: int,
        ret: Any,
        /,
    ) -> int: ...
    def bal_sample(
        self,
        pid: int,
        vmas: Any,
        n_vmas: int,
        maps: Any,
        strata: int,
        questions: int,
        seed: int,
        n_nodes: int,
        rows: Any,
        row_capacity: int,
        ret: Any,
        /,
    ) -> int: ...
    def bal_count_numa_maps(
        self,
        text: bytes,
        length: int,
        vmas: Any,
        n_vmas: int,
        n_nodes: int,
        rows: Any,
        row_capacity: int,
        ret: Any,
        /,
    ) -> int: ...
    def bal_migrate(self, pid: int, ranges: Any, n_ranges: int, args: Any, cursor: Any, ret: Any, /) -> int: ...
    def bal_migrate_process(self, pid: int, sources: Any, targets: Any, ret: Any, /) -> int: ...
    def bal_evict(
        self, pid: int, pidfd: int, ranges: Any, n_ranges: int, args: Any, cursor: Any, ret: Any, /
    ) -> int: ...
    def bal_idle_call(self, ret: Any, /) -> int: ...
    def bal_survey(
        self,
        proc_fd: int,
        args: Any,
        seats: Any,
        n_seats: int,
        capacity: int,
        told: Any,
        dropped: Any,
        ret: Any,
        /,
    ) -> int: ...
    def bal_close_seats(self, seats: Any, n_seats: int, /) -> int: ...
    def bal_named_seats(
        self, seats: Any, n_seats: int, beginning: bytes, pids: Any, capacity: int, ret: Any, /
    ) -> int: ...
    def bal_threads(
        self,
        proc_fd: int,
        pid: int,
        args: Any,
        seats: Any,
        n_seats: int,
        capacity: int,
        run_ticks: Any,
        ret: Any,
        /,
    ) -> int: ...
    def bal_access_start(
        self, memory: Any, length: int, n_slots: int, slot_of_cpu: Any, n_cpus: int, ret: Any, /
    ) -> int: ...
    def bal_access_add(self, accesses: Any, n: int, first_is_touch: int, table: Any, /) -> int: ...
    def bal_access_look(self, table: Any, address: int, ret: Any, /) -> int: ...
    def bal_access_forget(self, table: Any, before_ns: int, ret: Any, /) -> int: ...
    def bal_access_judge(self, table: Any, args: Any, ret: Any, /) -> int: ...
    def bal_ring_open(self, args: Any, ret: Any, /) -> int: ...
    def bal_ring_rate(self, ring: Any, frequency_hz: int, /) -> int: ...
    def bal_ring_period(self, ring: Any, event: int, period: int, /) -> int: ...
    def bal_ring_close(self, ring: Any, /) -> int: ...
    def bal_decode(self, code: bytes, n: int, ret: Any, /) -> int: ...
    def bal_decode_last(self, code: bytes, n: int, ret: Any, /) -> int: ...
    def bal_rings_drain(
        self, rings: Any, n_rings: int, spans: Any, n_spans: int, pid: int, operands: Any, table: Any, ret: Any, /
    ) -> int: ...

ffi: _Ffi
lib: _Lib
