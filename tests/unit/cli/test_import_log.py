"""`balancerctl import-log` against a real control socket and store: this very process is what the logs are about."""

import ctypes
import gzip
import json
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from balancerd.control.client import ControlFailure
from balancerd.control.import_pieces import MOST_BODY_BYTES, PIECE_SAMPLES
from balancerd.kernel.accesses.live_process import ProcessFinder
from balancerd.kernel.accesses.log_store import LogStore
from balancerd.kernel.clock import MonotonicClock
from balancerd.model.ids import CpuId, NodeId
from balancerd.model.topology import Node, Topology
from tests.unit.cli.conftest import Run
from tests.unit.control.daemon import Room, running
from tests.unit.kernel.worlds import OWN

PAGE = 4096
MIB = 1 << 20
PID = os.getpid()
TOPOLOGY = Topology(
    nodes=(Node(id=NodeId(0), cpus=frozenset({CpuId(0)}), total_bytes=1 << 30, distances={NodeId(0): 10}),),
    node_of_cpu={CpuId(0): NodeId(0)},
)


@dataclass
class Served:
    """A daemon that takes imports, and memory of this process that a log may tell of."""

    socket: str
    store: LogStore
    start: int
    room: Room

    def lines(self, n: int, **changes: object) -> list[str]:
        at = changes.get("at", time.monotonic())
        pid, cpu = changes.get("pid", PID), changes.get("cpu", 0)
        return [f"{pid}/{PID} [{cpu:03}] {at:.6f}: {self.start + i % 512 * PAGE:16x}\n" for i in range(n)]

    def pages(self) -> int:
        counts = self.store.counts(OWN)
        return 0 if counts is None else counts.table.totals().pages


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    clock = MonotonicClock()
    finder = ProcessFinder(clock)
    store = LogStore(finder.clocks, finder.find, lambda: TOPOLOGY, table_bytes=MIB, most_processes=4)
    with mmap.mmap(-1, 5 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        start = ctypes.addressof(ctypes.c_char.from_buffer(area))
        room = Room(socket=tmp_path / "control.sock", imports=store)
        with running(room.server()):
            yield Served(str(room.socket), store, start, room)
    store.close()
    clock.close()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def to_file(lines: list[str], name: str = "log", *, packed: bool = False) -> str:
        data = "".join(lines).encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if packed else data)
        return str(tmp_path / name)

    return to_file


@pytest.mark.parametrize("packed", [False, True])
def test_a_log_of_a_live_process_is_counted(
    served: Served, run: Run, write: Callable[..., str], *, packed: bool
) -> None:
    path = write(served.lines(PIECE_SAMPLES + 500), packed=packed)
    done = run("import-log", path, socket=served.socket)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"{path}: {PIECE_SAMPLES + 500} samples in {PIECE_SAMPLES + 500} lines, 0 lost",
        f"  process {PID}: {PIECE_SAMPLES + 500} counted",
    ]
    assert served.pages() == 512


def test_what_is_left_out_is_told(served: Served, run: Run, write: Callable[..., str]) -> None:
    odd = ["what is this?\n", *served.lines(3), *served.lines(2, cpu=77), *served.lines(4, at=0.5)]
    path = write([*odd, *served.lines(1, pid=4194303), f"{PID}/{PID} [000] {time.monotonic():.6f}: {0x10000:16x}\n"])
    done = run("import-log", path, socket=served.socket)
    assert done.exit_code == 0
    assert done.stderr == f"{path}:1: no sample of a memory access\n"
    assert done.stdout.splitlines() == [
        f"{path}: 11 samples in 12 lines, 0 lost",
        f"  process {PID}: 3 counted, 1 not in memory that is watched, 4 of before it began, 2 from CPUs of no node",
        "  process 4194303: left out: there is no such process any more",
    ]


def test_in_json_the_same(served: Served, run: Run, write: Callable[..., str]) -> None:
    path = write([*served.lines(3), "foreign\n"])
    done = run("import-log", path, path, "--json", socket=served.socket)
    document = json.loads(done.stdout)
    assert (done.exit_code, document["schema"], len(document["logs"])) == (0, 1, 2)
    log = document["logs"][0]
    assert (log["samples"], log["foreign_lines"], log["error"]) == (3, 1, None)
    assert log["odd_lines"] == [{"line": 4, "what": "no sample of a memory access"}]
    assert [process["counted_samples"] for process in log["processes"]] == [3]


def test_of_a_gzip_file_that_is_cut_off_nothing_is_taken(
    served: Served, run: Run, write: Callable[..., str], tmp_path: Path
) -> None:
    whole = Path(write(served.lines(5000), packed=True)).read_bytes()
    (tmp_path / "cut").write_bytes(whole[:-20])
    done = run("import-log", str(tmp_path / "cut"), str(tmp_path / "log"), socket=served.socket)
    assert done.exit_code == 1  # though the second one was taken
    assert "damaged after line" in done.stderr
    assert f"process {PID}: 5000 counted" in done.stdout


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: path.mkdir(), "no regular file"),
        (os.mkfifo, "no regular file"),
        (lambda path: path.write_text("hello\nworld\n"), "no samples in 2 lines"),
        (lambda path: path.write_bytes(b"\x1f\x8b and no more"), "damaged"),
        (lambda _path: None, "No such file"),
        (lambda path: path.write_text(f"{PID}/1 [000] 99999999.000000:     7f0000000000\n"), "after now"),
    ],
)
def test_what_is_no_log_is_refused(
    served: Served, run: Run, tmp_path: Path, make: Callable[[Path], object], told: str
) -> None:
    make(tmp_path / "odd")
    done = run("import-log", str(tmp_path / "odd"), socket=served.socket)
    assert (done.exit_code, done.stdout) == (1, "")
    assert told in done.stderr


def test_without_a_daemon_it_says_so(run: Run, served: Served, write: Callable[..., str]) -> None:
    assert run("import-log", write(served.lines(1))).exit_code == 3


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"name": "x", "samples": {}}',
        b'{"name": "x", "samples": {"1": 0}}',
        b'{"name": "x", "samples": {"0": 1}}',
        b'{"name": "x", "samples": {"99999999999": 1}}',
        b'{"name": "x", "samples": {"1": true}}',
        b'{"name": 1, "samples": {"1": 1}}',
        b'{"name": "x", "samples": {"1": 1}, "more": 1}',
        b'{"name": "x", "samples": {"1": 1}, "last_seconds": 5}',
        b'{"name": "x", "samples": {"1": 1}, "first_seconds": NaN, "last_seconds": 5}',
        b'{"name": "x", "samples": {"1": 1}, "first_seconds": 6, "last_seconds": 5}',
        b'{"name": "x", "samples": {"1": 1}, "lost_samples": -1}',
        b'{"name": "x", "samples": {"1": 1}, "clock": 1}',
    ],
)
def test_a_header_that_is_none_is_refused(served: Served, body: bytes) -> None:
    with pytest.raises(ControlFailure) as refused:
        served.room.client.post_bytes("/v1/imports", body)
    assert refused.value.code == 400
    assert served.room.errors == []


def test_pieces_are_bounded_whole_and_of_an_import(served: Served) -> None:
    client = served.room.client
    number = client.post("/v1/imports", {"name": "x", "samples": {str(PID): 1}})["import"]["number"]
    for body, code in ((b"x" * 27, 400), (b"x" * (MOST_BODY_BYTES + 1), 413)):
        with pytest.raises(ControlFailure) as refused:
            client.post_bytes(f"/v1/imports/{number}/samples", body)
        assert refused.value.code in {code, None}  # it may hang up before all of a body that is too long was sent
    with pytest.raises(ControlFailure) as refused:
        client.post_bytes(f"/v1/imports/{number + 1}/samples", b"")
    assert refused.value.code == 409
    largest = struct.pack("<IIIQQ", PID, 2**32 - 1, 2**32 - 1, 2**64 - 1, 2**64 - 1)
    client.post_bytes(f"/v1/imports/{number}/samples", largest * PIECE_SAMPLES)
    told = client.post(f"/v1/imports/{number}/commit")["processes"]
    assert [process["elsewhere_samples"] for process in told] == [PIECE_SAMPLES]
    assert served.room.errors == []
