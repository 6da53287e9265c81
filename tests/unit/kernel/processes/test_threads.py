"""Which threads a pass reads: shares, budgets, and that nothing is lost by them."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from balancerd import native
from balancerd.kernel.processes.threads import ThreadReader, threads_of_each
from balancerd.native import NodeOfCpu, ProcessRow, ProcessSeats, SurveyRules, ThreadSeats, ThreadSurvey
from tests.unit.fakes import make_topology
from tests.unit.kernel.children import child
from tests.unit.kernel.trees import proc_tree, stat_line

TOPOLOGY = make_topology()


class Core:
    """The native core, which notes how many threads of whom were read."""

    def __init__(self) -> None:
        self.reads: list[tuple[int, int]] = []

    def threads(
        self,
        proc_fd: int,
        pid: int,
        seats: ThreadSeats,
        nodes: NodeOfCpu,
        *,
        expected_ticks: int,
        turn: int = 0,
        shares: int = 1,
    ) -> ThreadSurvey:
        found = native.threads(proc_fd, pid, seats, nodes, expected_ticks=expected_ticks, turn=turn, shares=shares)
        self.reads.append((pid, found.read))
        return found


class Procfs:
    """A fake /proc of processes whose threads have the numbers behind their pid; thread n is on node n modulo 4."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fd = os.open(root, os.O_PATH)
        self.core = Core()

    def write(self, pid: int, run: Mapping[int, int], *, cores: float = 1.0, run_ticks: int = 10**6) -> ProcessRow:
        files = {
            f"task/{tid}/stat": stat_line(tid, "t", start_ticks=1, cpu_ticks=(n, 0), cpu=tid % 4)
            for tid, n in run.items()
        }
        proc_tree(self.root, {pid: {"stat": stat_line(pid, "x", start_ticks=1)} | files})
        return ProcessRow(
            pid=pid,
            start_ticks=1,
            comm="x",
            is_loud=True,
            cpu_cores=cores,
            faults_per_second=0.0,
            run_ticks=run_ticks,
            before_ticks=100,
            cpu_ticks=sum(run.values()),
            rss_pages=1,
            n_threads=len(run),
            last_cpu=0,
        )


@pytest.fixture
def procfs(tmp_path: Path) -> Iterator[Procfs]:
    made = Procfs(tmp_path)
    yield made
    os.close(made.fd)


@pytest.mark.parametrize(
    ("n_threads", "most"),
    [
        ([], 512),
        ([5, 5000], 512),
        ([512] * 8, 512),
        ([512] * 9, 256),
        ([2] * 2000 + [600], 64),
        ([2] * 2047 + [600], 8),
        ([100] * 1000, 8),
    ],
)
def test_few_threads_are_read_whole_and_many_in_shares_that_fit(n_threads: list[int], most: int) -> None:
    assert threads_of_each(n_threads, 512, 4096) == most


def test_a_process_with_many_threads_is_read_in_shares_and_loses_nothing(procfs: Procfs) -> None:
    reader = ThreadReader(procfs.core, procfs.fd, of_one=10)
    total = 0
    for second in range(1, 13):
        row = procfs.write(1000, dict.fromkeys(range(1000, 1037), 100 + second))
        total += sum(reader.read([row], TOPOLOGY, second).run_ticks[1000].values())
    assert {read for _, read in procfs.core.reads} == {9, 10}
    # Each of the four shares is read three times, so that it is known for the eight seconds between the first and last.
    assert total == 37 * 8


def test_the_busiest_come_first_and_the_others_keep_what_is_known_until_there_is_room(procfs: Procfs) -> None:
    reader = ThreadReader(procfs.core, procfs.fd, of_one=8, of_all=20)

    def read(cores: Mapping[int, float], ticks: int) -> dict[int, int]:
        rows = [procfs.write(pid, dict.fromkeys(range(pid, pid + 8), ticks), cores=busy) for pid, busy in cores.items()]
        found = reader.read(rows, TOPOLOGY, ticks)
        return {pid: sum(ran.values()) for pid, ran in found.run_ticks.items()}

    assert read({100: 1, 200: 1}, 5) == {100: 0, 200: 0}
    assert read({100: 3, 200: 1, 300: 2}, 6) == {100: 8, 300: 0}
    assert read({100: 3, 200: 4, 300: 2}, 7) == {100: 8, 200: 16}
    assert read({100: 3, 300: 4}, 8) == {100: 8, 300: 16}


def test_a_process_that_is_loud_again_within_a_minute_has_run_meanwhile_and_later_is_as_good_as_new(
    procfs: Procfs,
) -> None:
    for quiet_seconds, expected in ((59, {0: 7, 1: 7}), (60, {})):
        reader = ThreadReader(procfs.core, procfs.fd)
        reader.read([procfs.write(100, {100: 1, 101: 1})], TOPOLOGY, 5)
        reader.read([], TOPOLOGY, 10)
        row = procfs.write(100, {100: 8, 101: 8})
        assert reader.read([row], TOPOLOGY, 5 + quiet_seconds).run_ticks == {100: expected}


@pytest.mark.parametrize(("pause_seconds", "expected"), [(2, 30), (60, 20)])
def test_the_only_thread_ran_what_its_process_ran_since_it_was_loud(
    procfs: Procfs, pause_seconds: int, expected: int
) -> None:
    reader = ThreadReader(procfs.core, procfs.fd)
    reader.read([procfs.write(100, {100: 70})], TOPOLOGY, 5)
    row = procfs.write(100, {100: 100}, run_ticks=20)
    assert reader.read([row], TOPOLOGY, 5 + pause_seconds).run_ticks == {100: {0: expected}}
    assert procfs.core.reads == []
    row = procfs.write(100, {100: 100}, run_ticks=20)._replace(start_ticks=2)
    assert reader.read([row], TOPOLOGY, 9 + pause_seconds).run_ticks == {100: {0: 20}}, "another process"


def test_a_process_that_is_gone_is_told_so(procfs: Procfs) -> None:
    row = procfs.write(100, {100: 1, 101: 1})
    found = ThreadReader(procfs.core, procfs.fd).read([row, row._replace(pid=300)], TOPOLOGY, 1.0)
    assert set(found.run_ticks) == {100}
    assert found.gone == {300}


def test_a_real_process_with_two_thousand_threads_is_read_in_shares() -> None:
    code = """
import threading
threading.stack_size(65536)
wait = threading.Event()
for _ in range(1999): threading.Thread(target=wait.wait, daemon=True).start()
"""
    seats, core = ProcessSeats(), Core()
    rules = SurveyRules(min_rss_pages=1, min_cpu_cores=1.0, ticks_per_second=100)
    with child(code) as (_, id_):
        fd = os.open("/proc", os.O_PATH)
        found = native.survey(fd, seats, rules, now_seconds=1.0, boot_ticks=10**9)
        row = next(row for row in found.rows if row.pid == id_.pid)._replace(run_ticks=10**6, before_ticks=10**9)
        reader = ThreadReader(core, fd)
        for second in range(5):
            assert sum(reader.read([row], TOPOLOGY, second).run_ticks[id_.pid].values()) < 10
        os.close(fd)
    seats.close()
    assert row.n_threads == 2000
    reads = [read for _, read in core.reads]
    assert sum(reads[:4]) == 2000
    assert max(reads) <= 520, "tids may be spread unevenly where others start threads, too"
