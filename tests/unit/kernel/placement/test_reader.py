import errno
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from balancerd import native
from balancerd.kernel.errors import ParseError, ProcessGoneError
from balancerd.kernel.placement.reader import PlacementReader, estimate
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.placement_method import PlacementMethod
from balancerd.model.sample import PlacementSample, VmaKind
from balancerd.native.records import Tally, VmaTally
from tests.unit.fakes import FakeClock
from tests.unit.kernel.children import child
from tests.unit.kernel.trees import MACHINES, write_tree

MIB = 1 << 20


class FakeCore:
    """A core in which every page is on `node`, but for every `other_of`-th, which is on node 0."""

    def __init__(self, node: int = 0, other_of: int = 0) -> None:
        self.node = node
        self.other_of = other_of
        self.questions: list[int] = []
        self.seeds: list[int] = []
        self.error: OSError | None = None

    def sample(
        self, pid: int, table: native.VmaTable, *, n_nodes: int, strata: Iterable[int], questions: int, seed: int
    ) -> Tally:
        assert pid > 0
        self.questions.append(questions)
        self.seeds.append(seed)
        if self.error is not None:
            raise self.error
        wanted = set(strata)
        vmas = [i for i in range(len(table)) if table.row(i).stratum in wanted]
        units = sum(stratum.units for stratum in table.strata() if stratum.index in wanted)
        rows = []
        for at, vma in enumerate(vmas):
            answers = questions * (at + 1) // len(vmas) - questions * at // len(vmas)
            others = answers // self.other_of if self.other_of else 0
            on_node = tuple({self.node: answers - others, 0: others}.get(n, 0) for n in range(n_nodes))
            if self.node == 0:
                on_node = (answers, *(0,) * (n_nodes - 1))
            rows.append(VmaTally(vma=vma, on_node=on_node, absent=0, other=0))
        return Tally(
            asked_units=questions,
            present_units=questions,
            units=units,
            on_node=tuple(map(sum, zip(*(row.on_node for row in rows), strict=True))),
            differing_pairs=(0,) * n_nodes,
            lone_pairs=(0,) * n_nodes,
            rows=tuple(rows),
            seconds=0.0,
        )


def exhibit(root: Path, id_: ProcessId, machine: str = "four-nodes-6.12") -> Path:
    """Give a live process the captured mappings of another, so that pidfd and files belong together."""
    source = MACHINES / machine / "proc/exhibit"
    files = {f"{id_.pid}/{name}": (source / name).read_bytes() for name in ("maps", "numa_maps")}
    files[f"{id_.pid}/stat"] = Path(f"/proc/{id_.pid}/stat").read_bytes()
    files["self/mountinfo"] = (source / "mountinfo").read_bytes()
    return write_tree(root, files)


LARGE = 1 << 40
"""More than numa_maps is ever read for without need."""


def present(placement: PlacementSample) -> int:
    return sum(placement.bytes_by_node.values())


def test_the_exact_placement_of_this_machine_agrees_with_the_memory_that_was_touched() -> None:
    with child("m = mmap.mmap(-1, 64 << 20); m.write(b'x' * (64 << 20))") as (_, id_):
        exact = estimate(id_.pid, exact=True)
        sampled = estimate(id_.pid)
    largest = max(exact.vmas, key=lambda placed: placed.vma.end - placed.vma.start)
    assert sum(largest.pages_by_node.values()) == largest.found_pages == 64 * MIB // 4096
    assert largest.absent_pages == 0
    assert (exact.exact, exact.method, exact.intervals) == (True, PlacementMethod.EVERY_PAGE, {})
    assert exact.process == sampled.process == id_
    assert present(sampled) == pytest.approx(present(exact), rel=0.05)
    assert (sampled.exact, sampled.method) == (False, PlacementMethod.SAMPLE)
    assert max(interval.high for interval in sampled.intervals.values()) == 1.0
    assert sampled.queried_pages < 20_000
    assert sampled.seconds > 0
    assert sampled.bytes_by_kind[VmaKind.SHMEM] == pytest.approx(exact.bytes_by_kind[VmaKind.SHMEM], rel=0.05)
    assert exact.n_vmas == sampled.n_vmas >= len(exact.vmas) > len(sampled.vmas)
    assert all(placed.found_pages > 0 for placed in sampled.vmas)


def test_a_hundred_tebibytes_of_reservation_do_not_hide_what_is_there() -> None:
    reserve = "r = [mmap.mmap(-1, 10 << 40, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000) for _ in range(10)]"
    with child(f"m = mmap.mmap(-1, 64 << 20); m.write(b'x' * (64 << 20))\n{reserve}") as (_, id_):
        sampled = estimate(id_.pid)
    assert present(sampled) == pytest.approx(75 * MIB, rel=0.15)
    assert sampled.queried_pages < 40_000
    assert sum(placed.vma.end - placed.vma.start for placed in sampled.vmas) < 10 << 40, "nothing was found there"


def test_a_small_process_is_read_from_numa_maps_where_that_costs_less_than_a_sample() -> None:
    with child() as (_, id_):
        exact = estimate(id_.pid, exact=True)
        cheap = estimate(id_.pid)
    assert (cheap.method, cheap.exact, cheap.intervals) == (PlacementMethod.NUMA_MAPS, True, {})
    assert present(cheap) == pytest.approx(present(exact), rel=0.01), "a page or two may come or go"
    assert not cheap.complete
    assert cheap.mempolicies_at is None


def test_pages_of_the_kernel_are_not_among_the_mappings() -> None:
    own = estimate(os.getpid(), exact=True)
    names = {placed.vma.name for placed in own.vmas}
    assert "[stack]" in names
    assert not names & {"[vdso]", "[vvar]", "[vsyscall]"}
    assert all(placed.vma.mempolicy is None and placed.vma.page_bytes is None for placed in own.vmas)
    assert own.mempolicies_at is None


def test_counts_are_scaled_to_pages_of_each_mapping(tmp_path: Path) -> None:
    with child() as (_, id_):
        core = FakeCore(node=2)
        reader = PlacementReader(core, FakeClock(), str(exhibit(tmp_path, id_)), lambda: 0.5)
        placement = reader.read(id_, n_nodes=4, rss_bytes=LARGE)
    (hugetlb_pages, questions) = core.questions
    assert questions == 2048, "every answer named a node, so one pass is enough"
    total_pages = sum((placed.vma.end - placed.vma.start) // 4096 for placed in placement.vmas)
    assert sum(sum(placed.pages_by_node.values()) for placed in placement.vmas) == pytest.approx(total_pages)
    hugetlb = [placed for placed in placement.vmas if placed.vma.kind is VmaKind.HUGETLB]
    assert [placed.pages_by_node for placed in hugetlb] == [{2: 512}] * hugetlb_pages
    assert all(placed.absent_pages == 0 for placed in placement.vmas)
    assert placement.intervals[NodeId(2)].high == 1.0
    assert placement.intervals[NodeId(0)].high < 0.002


def test_intervals_allow_for_resident_memory_that_was_not_seen(tmp_path: Path) -> None:
    with child() as (_, id_):
        procfs = exhibit(tmp_path, id_)
        (procfs / f"{id_.pid}/maps").write_text("10000000-90000000 rw-p 00000000 00:00 0 \n")
        reader = PlacementReader(FakeCore(node=2), FakeClock(), str(procfs))
        seen = reader.read(id_, n_nodes=4, rss_bytes=2 << 30)
        half = reader.read(id_, n_nodes=4, rss_bytes=4 << 30)
    assert seen.intervals[NodeId(2)].low > 0.99
    assert half.intervals[NodeId(2)].low == pytest.approx(0.5, abs=0.01)
    assert half.intervals[NodeId(0)].high == pytest.approx(0.5, abs=0.01)


def test_every_question_has_chances_of_its_own(tmp_path: Path) -> None:
    with child() as (_, id_):
        core = FakeCore()
        reader = PlacementReader(core, FakeClock(), str(exhibit(tmp_path, id_)))
        for _ in range(2):
            reader.read(id_, n_nodes=4, rss_bytes=LARGE)
    assert len(set(core.seeds)) == len(core.seeds) == 4


def test_a_process_known_to_be_dense_is_tested_first(tmp_path: Path) -> None:
    with child() as (_, id_):
        core = FakeCore(node=2)
        reader = PlacementReader(core, FakeClock(), str(exhibit(tmp_path, id_)))
        first = reader.read(id_, n_nodes=4, rss_bytes=LARGE, home=NodeId(2))
        tested = reader.read(id_, n_nodes=4, rss_bytes=LARGE, home=NodeId(2))
        badly = reader.read(id_, n_nodes=4, rss_bytes=LARGE, home=NodeId(1))
        complete = reader.read(id_, n_nodes=4, rss_bytes=LARGE, home=NodeId(2), exact=True)
        reader.forget_all_but(set())
        forgotten = reader.read(id_, n_nodes=4, rss_bytes=LARGE, home=NodeId(2))
    assert first.method is forgotten.method is PlacementMethod.SAMPLE, "hugetlb pages: nobody knows how dense"
    assert tested.method is PlacementMethod.TEST
    assert not tested.exact
    assert tested.queried_pages == tested.present_pages <= 120, "most are of program files, which do not count"
    assert tested.intervals[NodeId(2)].low == pytest.approx(1 / (1 + 1.96**2 / tested.present_pages), abs=0.01)
    assert badly.method is PlacementMethod.SAMPLE
    assert complete.method is PlacementMethod.EVERY_PAGE


def test_program_files_elsewhere_do_not_make_a_process_misplaced(tmp_path: Path) -> None:
    text = (
        "10000000-20000000 r-xp 00000000 fe:00 7 /program\n20000000-20001000 r--p 00000000 fe:00 7 /program\n"
        "30000000-40000000 rw-p 00000000 00:00 0 \n"
    )

    class HalfElsewhere(FakeCore):
        def sample(
            self, pid: int, table: native.VmaTable, *, n_nodes: int, strata: Iterable[int], questions: int, seed: int
        ) -> Tally:
            tally = super().sample(pid, table, n_nodes=n_nodes, strata=strata, questions=questions, seed=seed)
            nodes = {0: (0, 1), 1: (0, 1), 2: (1, 0)}
            rows = (replace(r, on_node=tuple(n * sum(r.on_node) for n in nodes[r.vma])) for r in tally.rows)
            return replace(tally, rows=tuple(rows))

    with child() as (_, id_):
        procfs = exhibit(tmp_path, id_)
        (procfs / f"{id_.pid}/maps").write_text(text)
        reader = PlacementReader(HalfElsewhere(), FakeClock(), str(procfs))
        methods = [reader.read(id_, n_nodes=2, rss_bytes=LARGE, home=home).method for home in (NodeId(0), NodeId(1))]
    assert methods == [PlacementMethod.TEST, PlacementMethod.SAMPLE]


def test_mempolicies_are_read_on_request_and_remembered(tmp_path: Path) -> None:
    with child() as (_, id_):
        clock = FakeClock()
        core = FakeCore()
        procfs = exhibit(tmp_path, id_)
        reader = PlacementReader(core, clock, str(procfs), lambda: 0.0)
        unread = reader.read(id_, n_nodes=4, rss_bytes=LARGE)
        assert all(placed.vma.mempolicy is None for placed in unread.vmas)
        core.questions.clear()
        read = reader.read(id_, n_nodes=4, rss_bytes=LARGE, read_mempolicies=True)
        assert core.questions == [], "numa_maps has told it already"
        read_at = clock.time
        clock.time += 60
        with (procfs / f"{id_.pid}/maps").open("ab") as maps:
            maps.write(b"7fffffff0000-7fffffff1000 rw-p 00000000 00:00 0 \n")
        remembered = reader.read(id_, n_nodes=4, rss_bytes=LARGE, exact=True)
        reader.forget_all_but(set())
        forgotten = reader.read(id_, n_nodes=4, rss_bytes=LARGE)
    assert {p.vma.mempolicy.mode for p in read.vmas if p.vma.mempolicy} >= {"bind", "default", "prefer (many)"}
    assert all(placed.vma.mempolicy is not None for placed in read.vmas)
    assert (read.complete, read.exact, read.method) == (True, True, PlacementMethod.NUMA_MAPS)
    memfds = {p.vma.kind: p.vma.page_bytes for p in read.vmas if p.vma.name.startswith("/memfd:")}
    assert memfds == {VmaKind.SHMEM: 4096, VmaKind.HUGETLB: None}, "only numa_maps tells a memfd of huge pages"
    assert {p.vma.page_bytes for p in read.vmas if p.vma.kind is VmaKind.HUGETLB} == {None, 2 * MIB}
    assert [placed.vma for placed in remembered.vmas[:-1]] == [placed.vma for placed in read.vmas]
    assert remembered.mempolicies_at == read_at
    assert remembered.vmas[-1].vma.mempolicy is None, "it is newer than the reading"
    assert forgotten.mempolicies_at is None


def test_a_complete_sample_lists_every_mapping_with_what_is_absent(tmp_path: Path) -> None:
    with child() as (_, id_):
        reader = PlacementReader(FakeCore(), FakeClock(), str(exhibit(tmp_path, id_)))
        read = reader.read(id_, n_nodes=4, rss_bytes=LARGE, read_mempolicies=True)
    assert read.n_vmas > len(read.vmas), "vdso and its like are counted and not listed"
    for placed in read.vmas:
        pages = (placed.vma.end - placed.vma.start) // 4096
        assert placed.absent_pages + sum(placed.pages_by_node.values()) == pages
        assert placed.found_pages == sum(placed.pages_by_node.values())
    huge = [p.pages_by_node for p in read.vmas if p.vma.kind is VmaKind.HUGETLB and p.pages_by_node]
    assert huge
    assert all(sum(pages.values()) == 512 for pages in huge), "numa_maps counts them in huge pages"


def test_for_a_minute_after_mempolicies_were_read_samples_are_complete_and_no_mere_tests(tmp_path: Path) -> None:
    clock = FakeClock()
    with child() as (_, id_):
        reader = PlacementReader(FakeCore(), clock, str(exhibit(tmp_path, id_)))

        def is_complete() -> bool:
            return reader.read(id_, n_nodes=4, rss_bytes=LARGE, home=NodeId(0)).complete

        seen = [is_complete()]
        reader.read(id_, n_nodes=4, rss_bytes=LARGE, read_mempolicies=True)
        for seconds in (0.0, 59.0, 2.0):
            clock.time += seconds
            seen.append(is_complete())
    assert seen == [False, True, True, False]


def test_a_numa_maps_that_is_not_understood_is_named(tmp_path: Path) -> None:
    with child() as (_, id_):
        procfs = exhibit(tmp_path, id_)
        (procfs / f"{id_.pid}/numa_maps").write_text("nonsense\n")
        reader = PlacementReader(FakeCore(), FakeClock(), str(procfs))
        with pytest.raises(ParseError, match=r"numa_maps:"):
            reader.read(id_, n_nodes=1, rss_bytes=LARGE, read_mempolicies=True)
        with pytest.raises(ParseError, match=r"numa_maps:"):
            reader.read(id_, n_nodes=1, rss_bytes=MIB)


def test_a_process_that_is_gone_is_told_apart_from_errors(tmp_path: Path) -> None:
    with child() as (process, id_):
        procfs = exhibit(tmp_path, id_)
        core = FakeCore()
        reader = PlacementReader(core, FakeClock(), str(procfs))
        core.error = PermissionError(errno.EPERM, "no")
        with pytest.raises(PermissionError):
            reader.read(id_, n_nodes=1, rss_bytes=LARGE)
        for number in (errno.ESRCH, errno.EINVAL):
            core.error = OSError(number, "gone, or about to be")
            with pytest.raises(ProcessGoneError, match="exited while it was asked"):
                reader.read(id_, n_nodes=1, rss_bytes=LARGE)
        core.error = None
        (procfs / f"{id_.pid}/maps").write_text("nonsense\n")
        with pytest.raises(ParseError, match=r"maps:1: not a mapping"):
            reader.read(id_, n_nodes=1, rss_bytes=LARGE)
        process.kill()
        process.wait()
        with pytest.raises(ProcessGoneError):
            reader.read(id_, n_nodes=1, rss_bytes=LARGE)
        with pytest.raises(ProcessGoneError):
            estimate(id_.pid)
