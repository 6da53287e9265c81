import errno
import os
from pathlib import Path

import pytest

from balancerd import native
from balancerd.kernel.errors import ParseError, ProcessGoneError
from balancerd.kernel.placement.reader import PlacementReader, estimate
from balancerd.model.ids import ProcessId
from balancerd.model.sample import VmaKind
from balancerd.native.records import Placement, RangePlacement
from tests.unit.fakes import FakeClock
from tests.unit.kernel.children import child
from tests.unit.kernel.trees import MACHINES, write_tree

MIB = 1 << 20


class FakeCore:
    """A core in which every page is on `node`."""

    def __init__(self, node: int = 0) -> None:
        self.node = node
        self.calls = 0
        self.error: OSError | None = None

    def placement(
        self, pid: int, ranges: native.RangeArray, *, n_nodes: int, samples: int = 0, phase: float = 0.0
    ) -> Placement:
        assert pid > 0
        assert 0 <= phase < 1
        self.calls += 1
        if self.error is not None:
            raise self.error
        each = max(1, samples // max(1, len(ranges)))
        on_node = tuple(each if n == self.node else 0 for n in range(n_nodes))
        row = RangePlacement(on_node=on_node, absent_pages=0, other_pages=0)
        return Placement(
            on_node=on_node,
            by_errno=(),
            queried_pages=samples,
            unwritten_pages=0,
            per_range=(row,) * len(ranges),
            calls=1,
            duration_seconds=0.0,
            longest_call_seconds=0.0,
        )


def exhibit(root: Path, id_: ProcessId, machine: str = "four-nodes-6.12") -> Path:
    """Give a live process the captured mappings of another, so that pidfd and files belong together."""
    source = MACHINES / machine / "proc/exhibit"
    files = {f"{id_.pid}/{name}": (source / name).read_bytes() for name in ("maps", "numa_maps")}
    files[f"{id_.pid}/stat"] = Path(f"/proc/{id_.pid}/stat").read_bytes()
    files["self/mountinfo"] = (source / "mountinfo").read_bytes()
    return write_tree(root, files)


def test_the_exact_placement_of_this_machine_agrees_with_the_memory_that_was_touched() -> None:
    with child("m = mmap.mmap(-1, 64 << 20); m.write(b'x' * (64 << 20))") as (_, id_):
        exact = estimate(id_.pid, exact=True)
        sampled = estimate(id_.pid)
    largest = max(exact.vmas, key=lambda placed: placed.vma.end - placed.vma.start)
    assert sum(largest.pages_by_node.values()) == 64 * MIB // 4096
    assert largest.absent_pages == 0
    assert exact.exact
    assert exact.process == sampled.process == id_
    assert not sampled.exact
    total, guess = sum(exact.bytes_by_node.values()), sum(sampled.bytes_by_node.values())
    assert guess == pytest.approx(total, rel=0.05)
    assert sampled.queried_pages < 20_000
    assert sampled.seconds > 0


def test_a_hundred_tebibytes_of_reservation_do_not_hide_what_is_there() -> None:
    reserve = "r = [mmap.mmap(-1, 10 << 40, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000) for _ in range(10)]"
    with child(f"m = mmap.mmap(-1, 64 << 20); m.write(b'x' * (64 << 20))\n{reserve}") as (_, id_):
        sampled = estimate(id_.pid)
    assert sum(placed.vma.end - placed.vma.start for placed in sampled.vmas) > 100 << 40
    assert sum(sampled.bytes_by_node.values()) == pytest.approx(75 * MIB, rel=0.15)
    assert sampled.queried_pages < 40_000


def test_pages_of_the_kernel_are_not_among_the_mappings() -> None:
    own = estimate(os.getpid(), samples=64)
    names = {placed.vma.name for placed in own.vmas}
    assert "[stack]" in names
    assert not names & {"[vdso]", "[vvar]", "[vsyscall]"}
    assert all(placed.vma.mempolicy is None and placed.vma.page_bytes is None for placed in own.vmas)
    assert own.mempolicies_at is None


def test_counts_are_scaled_to_pages_of_each_mapping(tmp_path: Path) -> None:
    with child() as (_, id_):
        core = FakeCore(node=2)
        reader = PlacementReader(core, FakeClock(), str(exhibit(tmp_path, id_)), phase=lambda: 0.5)
        placement = reader.read(id_, n_nodes=4, rss_bytes=MIB)
    assert core.calls == 1, "every answer named a node, so one pass is enough"
    total_pages = sum((placed.vma.end - placed.vma.start) // 4096 for placed in placement.vmas)
    each = 2048 // len(placement.vmas)
    for placed in placement.vmas:
        assert placed.pages_by_node == {2: pytest.approx(each * total_pages / 2048)}
        assert placed.absent_pages == 0


def test_mempolicies_are_read_on_request_and_remembered(tmp_path: Path) -> None:
    with child() as (_, id_):
        clock = FakeClock()
        procfs = exhibit(tmp_path, id_)
        reader = PlacementReader(FakeCore(), clock, str(procfs), phase=lambda: 0.0)
        unread = reader.read(id_, n_nodes=4, rss_bytes=MIB)
        assert all(placed.vma.mempolicy is None for placed in unread.vmas)
        read = reader.read(id_, n_nodes=4, rss_bytes=MIB, read_mempolicies=True)
        read_at = clock.time
        clock.time += 60
        with (procfs / f"{id_.pid}/maps").open("ab") as maps:
            maps.write(b"7fffffff0000-7fffffff1000 rw-p 00000000 00:00 0 \n")
        remembered = reader.read(id_, n_nodes=4, rss_bytes=MIB)
        reader.forget_all_but(set())
        forgotten = reader.read(id_, n_nodes=4, rss_bytes=MIB)
    assert {p.vma.mempolicy.mode for p in read.vmas if p.vma.mempolicy} >= {"bind", "default", "prefer (many)"}
    assert all(placed.vma.mempolicy is not None for placed in read.vmas)
    memfds = {p.vma.kind: p.vma.page_bytes for p in read.vmas if p.vma.name.startswith("/memfd:")}
    assert memfds == {VmaKind.SHMEM: 4096, VmaKind.HUGETLB: None}, "only numa_maps tells a memfd of huge pages"
    assert {p.vma.page_bytes for p in read.vmas if p.vma.kind is VmaKind.HUGETLB} == {None, 2 * MIB}
    assert [placed.vma for placed in remembered.vmas[:-1]] == [placed.vma for placed in read.vmas]
    assert remembered.mempolicies_at == read_at
    assert remembered.vmas[-1].vma.mempolicy is None, "it is newer than the reading"
    assert forgotten.mempolicies_at is None


def test_a_process_that_is_gone_is_told_apart_from_errors(tmp_path: Path) -> None:
    with child() as (process, id_):
        procfs = exhibit(tmp_path, id_)
        core = FakeCore()
        reader = PlacementReader(core, FakeClock(), str(procfs))
        core.error = PermissionError(errno.EPERM, "no")
        with pytest.raises(PermissionError):
            reader.read(id_, n_nodes=1, rss_bytes=MIB)
        core.error = ProcessLookupError(errno.ESRCH, "gone")
        with pytest.raises(ProcessGoneError, match="exited while it was read"):
            reader.read(id_, n_nodes=1, rss_bytes=MIB)
        core.error = None
        (procfs / f"{id_.pid}/maps").write_text("nonsense\n")
        with pytest.raises(ParseError, match=r"maps:1: not a mapping"):
            reader.read(id_, n_nodes=1, rss_bytes=MIB)
        process.kill()
        process.wait()
        with pytest.raises(ProcessGoneError):
            reader.read(id_, n_nodes=1, rss_bytes=MIB)
        with pytest.raises(ProcessGoneError):
            estimate(id_.pid)
