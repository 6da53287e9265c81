"""Reading /proc natively: real processes, and trees with hostile names, broken lines and vanished processes."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from balancerd.native import (
    NodeOfCpu,
    ProcessRow,
    ProcessSeats,
    ProcessSurvey,
    SurveyRules,
    ThreadSeats,
    ThreadSurvey,
    survey,
    threads,
)
from tests.unit.kernel.trees import proc_tree, stat_line
from tests.unit.native.memory import child, needs_root

HZ = os.sysconf("SC_CLK_TCK")


class Proc:
    """Surveys of one procfs; `now` passes only when a test says so, `rules` are as given."""

    def __init__(self, path: Path | str, *, capacity: int = 64, **rules: Any) -> None:
        self.fd = os.open(path, os.O_PATH | os.O_DIRECTORY)
        self.seats = ProcessSeats(capacity)
        given = {"min_rss_pages": 50, "min_cpu_cores": 0.1, "ticks_per_second": 100}
        self.rules = SurveyRules(**(given | rules))
        self.now = 1000.0

    def survey(self, *, after: float = 0.0) -> ProcessSurvey:
        self.now += after
        return survey(self.fd, self.seats, self.rules, now_seconds=self.now, boot_ticks=round(self.now * 100))

    def close(self) -> None:
        self.seats.close()
        os.close(self.fd)


@contextmanager
def proc(path: Path | str, **arguments: Any) -> Iterator[Proc]:
    opened = Proc(path, **arguments)
    try:
        yield opened
    finally:
        opened.close()


def survey_of(path: Path | str, *, min_rss_pages: int = 0, capacity: int = 64) -> ProcessSurvey:
    """The first survey."""
    with proc(path, min_rss_pages=min_rss_pages, capacity=capacity) as opened:
        return opened.survey()


def row_of(found: ProcessSurvey, pid: int) -> ProcessRow:
    return next(row for row in found.rows if row.pid == pid)


def pids_of(found: ProcessSurvey) -> list[int]:
    return [row.pid for row in found.rows]


def write(root: Path, pid: int, *, comm: str = "x", start_ticks: int = 5, **changes: Any) -> None:
    proc_tree(root, {pid: {"stat": stat_line(pid, comm, start_ticks=start_ticks, **changes)}})


def test_a_real_process_agrees_with_psutil() -> None:
    with child(pages=4000, touched=3000) as other:
        pid = other.process.pid
        row = row_of(survey_of("/proc"), pid)
        process = psutil.Process(pid)
        with process.oneshot():
            assert (row.n_threads, row.comm) == (process.num_threads(), process.name())
            assert row.start_ticks / HZ + psutil.boot_time() == pytest.approx(process.create_time(), abs=1.5)
            times = process.cpu_times()
            assert row.cpu_ticks == pytest.approx((times.user + times.system) * HZ, abs=2)
            assert row.rss_pages * 4096 == pytest.approx(process.memory_info().rss, rel=0.02)
            assert row.rss_pages >= 3000
            assert 0 <= row.last_cpu < (os.cpu_count() or 1)


def test_a_survey_of_proc_finds_the_processes_that_psutil_finds() -> None:
    before = set(psutil.pids())
    found = survey_of("/proc")
    after = set(psutil.pids())
    pids = pids_of(found)
    stayed = before & after
    for pid in stayed - set(pids):
        assert psutil.Process(pid).memory_info().rss == 0, "only kernel threads and zombies are not told"
    assert pids == sorted(set(pids))
    assert found.processes == found.read == len(pids) + found.kernel_threads
    assert found.unreadable == 0
    assert found.duration_seconds > 0


@pytest.mark.parametrize("capacity", [1, 2, 119, 1000])
def test_more_processes_than_there_is_room_for_are_all_found(tmp_path: Path, capacity: int) -> None:
    for pid in range(1, 120):
        write(tmp_path, pid)
    with proc(tmp_path, capacity=capacity) as opened:
        assert pids_of(opened.survey()) == list(range(1, 120))
        for pid in range(120, 300):
            write(tmp_path, pid)
        found = opened.survey()
        assert pids_of(found) == list(range(120, 300)), "the others are remembered through the growth"
        assert found.processes == 299


@pytest.mark.parametrize(
    "comm",
    [
        "plain",
        "two words",
        "a) R 1 2 3 (b",
        ")",
        "((",
        ") S 0 0 0 0 -1 4194560 1 1 1 1",
        "new\nline",
        "tab\there",
        "",
        "kworker/u" + "8" * 55,
    ],
)
def test_a_hostile_name_changes_no_number(tmp_path: Path, comm: str) -> None:
    write(tmp_path, 7, comm=comm, start_ticks=77, cpu_ticks=(3, 4), rss_pages=55, n_threads=2, cpu=9)
    (row,) = survey_of(tmp_path).rows
    assert row == ProcessRow(
        pid=7,
        start_ticks=77,
        comm=comm,
        is_loud=False,
        cpu_cores=None,
        faults_per_second=None,
        run_ticks=None,
        before_ticks=None,
        cpu_ticks=7,
        rss_pages=55,
        n_threads=2,
        last_cpu=9,
    )


def test_a_real_process_with_a_hostile_name_is_read() -> None:
    code = "import sys; open('/proc/self/comm', 'w').write('a) S\\n (b'); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-ISE", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        row = row_of(survey_of("/proc"), process.pid)
        assert (row.comm, row.n_threads) == ("a) S\n (b", 1)
        assert row.rss_pages > 500
        process.communicate()


def test_a_name_that_is_not_utf8_is_told_in_ascii(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7/stat").write_bytes(stat_line(7, "?", start_ticks=1).encode().replace(b"?", b"\xff\xfe"))
    (row,) = survey_of(tmp_path).rows
    assert row.comm == r"\xff\xfe"


def test_a_name_longer_than_any_is_cut(tmp_path: Path) -> None:
    write(tmp_path, 7, comm="x" * 300)
    (row,) = survey_of(tmp_path).rows
    assert row.comm == "x" * 64


def test_small_processes_and_kernel_threads_are_counted_without_a_row(tmp_path: Path) -> None:
    write(tmp_path, 1, comm="large", rss_pages=1000)
    write(tmp_path, 2, comm="small", rss_pages=999)
    write(tmp_path, 3, comm="kthread", rss_pages=0, flags=0x208040)
    write(tmp_path, 4, comm="kthread that borrows memory", rss_pages=5000, flags=0x208040)
    found = survey_of(tmp_path, min_rss_pages=1000)
    assert [row.comm for row in found.rows] == ["large"]
    assert (found.processes, found.kernel_threads) == (4, 2)


GOOD = stat_line(7, "x", start_ticks=1)


@pytest.mark.parametrize(
    ("text", "vanished", "unreadable"),
    [
        (None, 1, 0),
        ("", 1, 0),
        ("garbage", 0, 1),
        ("7 (x", 0, 1),
        ("7 )x( S 1", 0, 1),
        ("7 (x)", 0, 1),
        ("7 (x) S", 0, 1),
        (GOOD[: len(GOOD) // 2], 0, 1),
        (GOOD.replace(" 2009 ", " many "), 0, 1),
        ("9" * 5000, 0, 1),
    ],
)
def test_a_broken_line_is_counted_and_the_pass_goes_on(
    tmp_path: Path, text: str | None, vanished: int, unreadable: int
) -> None:
    (tmp_path / "7").mkdir()
    if text is not None:
        (tmp_path / "7/stat").write_text(text)
    write(tmp_path, 8)
    with proc(tmp_path) as opened:
        found = opened.survey()
        assert pids_of(found) == [8]
        assert (found.processes, found.read, found.vanished, found.unreadable) == (1, 1, vanished, unreadable)
        assert opened.survey(after=0.001).unreadable == unreadable, "it still is"
        (tmp_path / "7/stat").write_text(GOOD)
        found = opened.survey(after=11)
        assert (7 in pids_of(found), found.unreadable) == (True, 0), "it is tried again in its turn"


def test_a_process_that_cannot_be_read_any_more_is_told_as_it_was(tmp_path: Path) -> None:
    write(tmp_path, 7)
    with proc(tmp_path, max_kept=10) as opened:
        opened.survey()
        (tmp_path / "7/stat").write_text("garbage")
        found = opened.survey(after=1)
        assert (found.dropped, found.processes, found.read, found.unreadable) == ((), 1, 0, 1)
        write(tmp_path, 7, cpu_ticks=(40, 0))
        (row,) = opened.survey(after=1).rows
        assert row.cpu_cores == pytest.approx(0.2), "over both seconds"


def test_only_numbers_are_processes(tmp_path: Path) -> None:
    for name in ("self", "sys", "1x", "0", "-5", "99999999999", "4294967297"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "stat").write_text(GOOD)
    (tmp_path / "12").write_text("a file where a directory should be")
    found = survey_of(tmp_path)
    assert (found.rows, found.processes, found.unreadable) == ((), 0, 1)


def test_negative_numbers_of_a_line_are_read_past(tmp_path: Path) -> None:
    line = stat_line(7, "x", start_ticks=5).replace(" 20 0 1 ", " -100 -20 1 ")
    assert "-100" in line
    proc_tree(tmp_path, {7: {"stat": line}})
    assert row_of(survey_of(tmp_path), 7).start_ticks == 5


def test_rates_are_between_two_readings(tmp_path: Path) -> None:
    write(tmp_path, 7, cpu_ticks=(100, 50))
    with proc(tmp_path) as opened:
        opened.survey()
        line = stat_line(7, "x", start_ticks=5, cpu_ticks=(120, 80)).replace(" 2009 0 0 ", " 2109 0 20 ")
        proc_tree(tmp_path, {7: {"stat": line}})
        (row,) = opened.survey(after=2).rows
    assert (row.is_loud, row.run_ticks, row.before_ticks) == (True, 50, 100_000)
    assert row.cpu_cores == pytest.approx(0.25)
    assert row.faults_per_second == pytest.approx(60)


def test_loud_processes_are_read_in_each_pass_and_the_others_once_in_their_period(tmp_path: Path) -> None:
    kinds: dict[int, dict[str, int]] = {
        10: {"rss_pages": 100},  # large and idle: once in 4 s
        20: {"rss_pages": 10},  # small: once in 10 s
        30: {"rss_pages": 0, "flags": 0x208040},  # the kernel's: once in 60 s
        40: {"rss_pages": 100},  # loud
    }
    for pid, kind in kinds.items():
        write(tmp_path, pid, **kind)  # type: ignore[arg-type]
    reads = dict.fromkeys(kinds, 0)
    with proc(tmp_path) as opened:
        opened.survey()
        opened.survey(after=1)
        for second in range(1, 61):
            before = {seat.pid: seat.read_at for seat in opened.seats.data[0 : opened.seats.n]}
            write(tmp_path, 40, cpu_ticks=(50 * second, 0))
            opened.survey(after=1)
            for seat in opened.seats.data[0 : opened.seats.n]:
                reads[seat.pid] += seat.read_at != before[seat.pid]
    assert reads == {10: 15, 20: 6, 30: 1, 40: pytest.approx(60, abs=3)}


def test_no_pass_reads_all_small_processes(tmp_path: Path) -> None:
    for pid in range(1000, 2000):
        write(tmp_path, pid, rss_pages=10)
    with proc(tmp_path) as opened:
        assert opened.survey().read == 1000
        reads = [opened.survey(after=2).read for _ in range(10)]
    assert sum(reads) == 2000
    assert min(reads) > 150
    assert max(reads) < 250


def test_a_process_that_has_just_started_is_looked_at_again_soon(tmp_path: Path) -> None:
    with proc(tmp_path) as opened:
        write(tmp_path, 7, rss_pages=1, start_ticks=99_990)
        assert opened.survey().rows == ()
        write(tmp_path, 7, rss_pages=1000, cpu_ticks=(90, 0), start_ticks=99_990)
        (row,) = opened.survey(after=1).rows
        assert row.is_loud


def test_a_small_process_is_read_like_a_large_one_until_it_is_ten_seconds_old(tmp_path: Path) -> None:
    with proc(tmp_path) as opened:
        write(tmp_path, 8, rss_pages=1, start_ticks=99_990)
        opened.survey()
        opened.survey(after=1)
        reads = [opened.survey(after=1).read for _ in range(48)]
    assert [sum(reads[at : at + 12]) for at in range(0, 48, 12)] == [3, 1, 1, 1]


def test_between_two_listings_new_processes_are_not_seen_and_dead_ones_are_found_when_they_are_read(
    tmp_path: Path,
) -> None:
    with proc(tmp_path, listing_seconds=4, idle_seconds=2, capacity=1) as opened:
        for pid in (7, 9):
            write(tmp_path, pid)
        assert pids_of(opened.survey()) == [7, 9]
        assert pids_of(opened.survey(after=1)) == [7, 9], "there are rates now"
        write(tmp_path, 8)
        shutil.rmtree(tmp_path / "9")
        found = [opened.survey(after=1) for _ in range(3)]
    assert [pids_of(each) for each in found] == [[], [], [8]]
    assert sum(each.vanished for each in found) == 1
    assert [pid for each in found for pid in each.dropped] == [9]


def test_a_quiet_process_is_told_again_only_when_it_differs(tmp_path: Path) -> None:
    with proc(tmp_path, idle_seconds=0) as opened:

        def told_after(**changes: Any) -> bool:
            write(tmp_path, 7, **({"rss_pages": 6400, "start_ticks": 5} | changes))
            return pids_of(opened.survey(after=1)) == [7]

        assert told_after()
        assert told_after(), "there are rates now"
        assert not told_after()
        assert not told_after(rss_pages=6500)
        assert told_after(rss_pages=6501)
        assert not told_after(rss_pages=6501)
        assert told_after(rss_pages=6501, comm="y")
        assert told_after(rss_pages=6501, comm="y", n_threads=2)
        assert told_after(rss_pages=6501, comm="y", n_threads=2, cpu_ticks=(5, 0))
        assert told_after(rss_pages=6501, comm="y", n_threads=2, cpu_ticks=(5, 0)), "back to no core at all"
        assert not told_after(rss_pages=6501, comm="y", n_threads=2, cpu_ticks=(5, 0))


def test_a_process_that_is_loud_no_longer_is_told_once_more(tmp_path: Path) -> None:
    with proc(tmp_path) as opened:
        write(tmp_path, 7)
        opened.survey()
        write(tmp_path, 7, cpu_ticks=(101, 0))
        assert opened.survey(after=10).rows[0].is_loud
        write(tmp_path, 7, cpu_ticks=(200, 0))
        (row,) = opened.survey(after=10).rows
        assert not row.is_loud
        assert row.cpu_cores == pytest.approx(0.099)
        write(tmp_path, 7, cpu_ticks=(298, 0))
        assert opened.survey(after=10).rows == ()


def test_a_young_process_is_told_again_whenever_it_is_twice_as_old(tmp_path: Path) -> None:
    with proc(tmp_path) as opened:
        write(tmp_path, 7, start_ticks=100_000)
        ages = [second for second in range(200) if opened.survey(after=1).rows]
    assert ages[:2] == [0, 1]
    assert 6 <= len(ages) <= 9
    assert all(later >= 2 * earlier for earlier, later in pairwise(ages[1:]))


def test_a_process_that_shrinks_is_dropped_and_told_anew_when_it_grows(tmp_path: Path) -> None:
    with proc(tmp_path, idle_seconds=0, small_seconds=0) as opened:
        write(tmp_path, 7, rss_pages=50)
        assert pids_of(opened.survey()) == [7]
        write(tmp_path, 7, rss_pages=49)
        found = opened.survey(after=1)
        assert (found.rows, found.dropped, found.processes) == ((), (7,), 1)
        assert opened.survey(after=1).dropped == ()
        write(tmp_path, 7, rss_pages=50)
        assert pids_of(opened.survey(after=1)) == [7]


def test_other_rules_hold_from_the_next_pass_on(tmp_path: Path) -> None:
    write(tmp_path, 7, rss_pages=60)
    with proc(tmp_path) as opened:
        opened.survey()
        opened.rules = SurveyRules(min_rss_pages=100, min_cpu_cores=0.1, ticks_per_second=100)
        found = opened.survey()
        assert (found.dropped, found.read) == ((7,), 0)
        opened.rules = SurveyRules(min_rss_pages=20, min_cpu_cores=0.1, ticks_per_second=100)
        assert pids_of(opened.survey()) == [7]


def test_small_but_busy_processes_are_large_where_they_may_hold_hugetlb_pages(tmp_path: Path) -> None:
    with proc(tmp_path, busy_is_large=True) as opened:
        for pid in (7, 8):
            write(tmp_path, pid, rss_pages=1)
        assert opened.survey().rows == ()
        write(tmp_path, 7, rss_pages=1, cpu_ticks=(50, 0))
        found = opened.survey(after=1)
        assert [(row.pid, row.is_loud) for row in found.rows] == [(7, True)]
        assert opened.survey(after=1).dropped == (7,)


def test_another_process_with_the_same_pid_is_dropped_and_told_anew(tmp_path: Path) -> None:
    with proc(tmp_path, max_kept=10) as opened:
        write(tmp_path, 7, start_ticks=5, cpu_ticks=(10, 0))
        opened.survey()
        write(tmp_path, 7, start_ticks=6, cpu_ticks=(900, 0))
        found = opened.survey(after=1)
    assert found.dropped == (7,)
    assert [(row.pid, row.start_ticks, row.cpu_cores) for row in found.rows] == [(7, 6, None)]


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("start_ticks", [5, 6])
def test_the_descriptor_of_a_dead_process_does_not_answer_for_the_next_owner_of_its_pid(
    tmp_path: Path, start_ticks: int
) -> None:
    """A file of a dead process answers ESRCH; here that of the first owner is replaced by one that answers nothing."""
    with proc(tmp_path, idle_seconds=0, max_kept=10) as opened:
        write(tmp_path, 7, start_ticks=5)
        opened.survey()
        assert opened.survey(after=1).kept_descriptors == 1
        (tmp_path / "7/stat").write_text("")
        (tmp_path / "7/stat").unlink()
        write(tmp_path, 7, start_ticks=start_ticks)
        found = opened.survey(after=1)
        assert (found.dropped, found.vanished) == ((7,), 0)
        assert (row_of(found, 7).start_ticks, row_of(found, 7).cpu_cores) == (start_ticks, None)
        before = open_descriptors()
        assert opened.survey(after=1).kept_descriptors == 1
        shutil.rmtree(tmp_path / "7")
        found = opened.survey(after=1)
        assert (found.dropped, found.kept_descriptors, found.processes) == ((7,), 0, 0)
        assert open_descriptors() == before


def test_descriptors_are_kept_of_large_processes_up_to_a_limit_of_which_loud_ones_may_have_all(tmp_path: Path) -> None:
    open_before = open_descriptors()
    with proc(tmp_path, max_kept=8, idle_seconds=0) as opened:
        for seconds in range(3):
            for pid in range(1, 21):
                write(tmp_path, pid, rss_pages=100 if pid > 5 else 1, cpu_ticks=(100 * seconds if pid > 10 else 0, 0))
            opened.survey(after=1)
        found = opened.survey()
        kept = {seat.pid for seat in opened.seats.data[0 : opened.seats.n] if seat.fd >= 0}
        assert found.kept_descriptors == len(kept) == 8
        assert {pid for pid in kept if pid <= 10} <= set(range(6, 10))
        assert open_descriptors() == open_before + 8 + 1  # and the root
    assert open_descriptors() == open_before


def test_real_processes_that_start_and_exit_during_passes_are_found_and_given_up() -> None:
    stop = threading.Event()
    started: set[int] = set()

    def churn() -> None:
        for _ in range(200):
            if stop.is_set():
                return
            started.add((process := subprocess.Popen(["/bin/true"])).pid)
            process.wait()

    churner = threading.Thread(target=churn)
    with child(pages=1000, touched=900) as other, proc("/proc", max_kept=50) as opened:
        told: dict[int, ProcessRow] = {}
        churner.start()
        try:
            while churner.is_alive():
                found = opened.survey(after=0.1)
                for pid in found.dropped:
                    del told[pid]
                told |= {row.pid: row for row in found.rows}
                assert found.unreadable == 0
        finally:
            stop.set()
            churner.join()
        found = opened.survey(after=0.1)
        for pid in found.dropped:
            del told[pid]
        told |= {row.pid: row for row in found.rows}
        assert len(started) == 200
        assert other.process.pid in told
        living = set(psutil.pids())
        assert not {pid for pid in told if pid in started - living}
        assert found.processes == opened.seats.n


def test_a_real_process_is_read_through_its_kept_descriptor_until_it_is_gone() -> None:
    with proc("/proc", max_kept=10_000, idle_seconds=0) as opened:
        with child(pages=1000, touched=900) as other:
            pid = other.process.pid
            opened.survey()
            assert opened.survey(after=1).kept_descriptors > 0
            seats = {seat.pid: seat for seat in opened.seats.data[0 : opened.seats.n]}
            assert Path(f"/proc/self/fd/{seats[pid].fd}").readlink() == Path(f"/proc/{pid}/stat")
            start = seats[pid].start_ticks
            assert opened.seats.cpu_cores(pid, start) is not None
            assert opened.seats.cpu_cores(pid, start + 1) is None
        assert pid in opened.survey(after=1).dropped
        assert opened.seats.cpu_cores(pid, start) is None


_REUSE = """
import os, signal, sys, time
from pathlib import Path
from tests.unit.native.test_survey import HZ, Proc

def start(pid):
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
    child = os.fork()
    if child == 0:
        signal.pause()
    assert child == pid, (child, pid)

def end(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

for max_kept in (0, 10):
    opened = Proc("/proc", max_kept=max_kept, idle_seconds=0)
    start(700)
    opened.survey()
    before = opened.survey(after=1)
    end(700)
    tick = time.clock_gettime(time.CLOCK_BOOTTIME) * HZ
    while time.clock_gettime(time.CLOCK_BOOTTIME) * HZ < tick + 2:
        pass
    start(700)
    found = opened.survey(after=1)
    first, second = (next(row for row in each.rows if row.pid == 700) for each in (before, found))
    print(found.dropped, second.start_ticks - first.start_ticks >= 2, second.cpu_cores, before.kept_descriptors > 0)
    end(700)
    opened.close()
"""


@needs_root
def test_a_real_process_with_the_pid_of_a_dead_one_is_told_anew() -> None:
    alone = ["unshare", "--pid", "--mount", "--fork", "--mount-proc", "--kill-child"]
    done = subprocess.run(
        [*alone, sys.executable, "-c", _REUSE],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    assert done.stdout == "(700,) True None False\n(700,) True None True\n", done.stderr


# Threads: CPU n is on node n modulo 4.
NODES = NodeOfCpu((cpu, cpu % 4) for cpu in range(64))


def threads_of(
    path: Path | str, pid: int, seats: ThreadSeats, *, expected_ticks: int = 1000, **turn: int
) -> ThreadSurvey:
    proc_fd = os.open(path, os.O_PATH | os.O_DIRECTORY)
    try:
        return threads(proc_fd, pid, seats, NODES, expected_ticks=expected_ticks, **turn)
    finally:
        os.close(proc_fd)


def write_threads(root: Path, pid: int, run: Mapping[int, int], *, starts: Mapping[int, int] | None = None) -> None:
    """Thread n of a process is on CPU n modulo 4 and has run so many ticks."""
    shutil.rmtree(root / str(pid), ignore_errors=True)
    files = {"stat": stat_line(pid, "x", start_ticks=1)}
    for tid, ticks in run.items():
        start = (starts or {}).get(tid, 1)
        files[f"task/{tid}/stat"] = stat_line(tid, "o) d", start_ticks=start, cpu_ticks=(ticks, 0), cpu=tid % 4)
    proc_tree(root, {pid: files})


def test_threads_of_this_process_are_the_ones_that_psutil_finds() -> None:
    stop = threading.Event()
    others = [threading.Thread(target=stop.wait) for _ in range(5)]
    for thread in others:
        thread.start()
    try:
        seats = ThreadSeats(0, capacity=2)
        found = threads_of("/proc", os.getpid(), seats)
        expected = {thread.id for thread in psutil.Process().threads()}
    finally:
        stop.set()
        for thread in others:
            thread.join()
    assert [seat.tid for seat in seats.data[0 : seats.n]] == sorted(expected)
    assert found.listed == found.read == len(expected) >= 6
    assert (found.vanished, found.unreadable) == (0, 0)


def test_what_a_thread_ran_is_added_to_the_node_of_its_cpu(tmp_path: Path) -> None:
    seats = ThreadSeats(100)
    write_threads(tmp_path, 7, {7: 1000, 8: 500, 12: 10})
    assert threads_of(tmp_path, 7, seats).run_ticks == (), "nothing is known at first sight"
    write_threads(tmp_path, 7, {7: 1003, 8: 520, 12: 17})
    assert threads_of(tmp_path, 7, seats).run_ticks == ((0, 27), (3, 3))


def test_a_thread_that_started_since_then_counts_whole_and_one_that_ended_counts_no_more(tmp_path: Path) -> None:
    seats = ThreadSeats(100)
    write_threads(tmp_path, 7, {7: 1, 8: 5})
    threads_of(tmp_path, 7, seats)
    write_threads(tmp_path, 7, {7: 1, 9: 30, 10: 40, 8: 7}, starts={8: 100, 9: 99, 10: 100})
    assert threads_of(tmp_path, 7, seats).run_ticks == ((0, 7), (2, 40)), "8 is another one, 9 is older than it seems"
    write_threads(tmp_path, 7, {10: 41}, starts={10: 100})
    found = threads_of(tmp_path, 7, seats)
    assert (found.run_ticks, found.listed) == (((2, 1),), 1)


def test_the_only_thread_so_far_is_known_without_reading_it(tmp_path: Path) -> None:
    write_threads(tmp_path, 7, {7: 110, 8: 5}, starts={7: 50, 8: 100})
    assert threads_of(tmp_path, 7, ThreadSeats(100, alone=(7, 50, 100))).run_ticks == ((0, 5), (3, 10))


def test_threads_take_turns_and_each_counts_what_it_ran_since_its_own(tmp_path: Path) -> None:
    seats = ThreadSeats(100)
    pids = range(1000, 1040)
    total = 0
    for turn in range(9):
        write_threads(tmp_path, 1000, dict.fromkeys(pids, turn))
        found = threads_of(tmp_path, 1000, seats, shares=4, turn=turn)
        assert (found.read, found.listed) == (10, 40)
        total += sum(ticks for _, ticks in found.run_ticks)
    assert total == 10 * ((8 - 0) + (5 - 1) + (6 - 2) + (7 - 3))


def test_idle_threads_are_left_out_while_the_others_explain_what_the_process_ran(tmp_path: Path) -> None:
    seats = ThreadSeats(100)
    idle = dict.fromkeys(range(1001, 1081), 0)
    reads = []
    for turn in range(8):
        write_threads(tmp_path, 1000, {1000: 100 * turn} | idle)
        reads.append(threads_of(tmp_path, 1000, seats, expected_ticks=100, turn=turn).read)
    assert reads == [81, 81, 81, 81, 11, 11, 11, 11]
    write_threads(tmp_path, 1000, {1000: 750} | idle | {1005: 50})
    found = threads_of(tmp_path, 1000, seats, expected_ticks=100, turn=8)
    assert found.read == 81, "half of it was someone else"
    assert found.run_ticks == ((0, 50), (1, 50))


def test_cpus_and_nodes_that_are_not_known_count_nothing(tmp_path: Path) -> None:
    proc_fd = os.open(tmp_path, os.O_PATH)
    write_threads(tmp_path, 7, {7: 10, 8: 20, 9: 30})
    for nodes in (NodeOfCpu(()), NodeOfCpu([(1, 0)])):
        found = threads(proc_fd, 7, ThreadSeats(0), nodes, expected_ticks=60)
        assert found.read == 3
        assert found.run_ticks == (((0, 30),) if nodes.n_cpus else ())
    os.close(proc_fd)


def test_threads_without_a_stat_have_vanished_and_broken_ones_are_counted(tmp_path: Path) -> None:
    write_threads(tmp_path, 7, {7: 10})
    (tmp_path / "7/task/8").mkdir()
    (tmp_path / "7/task/9").mkdir()
    (tmp_path / "7/task/9/stat").write_text("garbage")
    found = threads_of(tmp_path, 7, ThreadSeats(0))
    assert (found.read, found.vanished, found.unreadable) == (1, 1, 1)
    assert found.run_ticks == ((3, 10),)


def test_threads_of_a_process_that_is_gone_are_an_error_with_its_pid(tmp_path: Path) -> None:
    with pytest.raises(ProcessLookupError, match="process 7"):
        threads_of(tmp_path, 7, ThreadSeats(0))


def test_a_root_that_is_no_directory_is_an_error() -> None:
    rules = SurveyRules(min_rss_pages=1, min_cpu_cores=1.0, ticks_per_second=100)
    with Path("/dev/null").open() as file, pytest.raises(NotADirectoryError):
        survey(file.fileno(), ProcessSeats(), rules, now_seconds=1.0, boot_ticks=100)


def test_processes_are_found_by_the_beginning_of_their_names_however_small_they_are(tmp_path: Path) -> None:
    names = {10: "numad", 11: "kdamond.0", 12: "a numad", 13: "kdamond.11", 14: "numa"}
    tree = {pid: {"stat": stat_line(pid, name, start_ticks=1, rss_pages=1)} for pid, name in names.items()}
    with proc(proc_tree(tmp_path, tree), capacity=2) as opened:
        assert opened.seats.pids_named("numad") == ()
        opened.survey()
        assert opened.seats.pids_named("numad") == (10,)
        assert opened.seats.pids_named("kdamond.") == (11, 13)
        assert opened.seats.pids_named("x") == ()
        shutil.rmtree(tmp_path / "10")
        opened.survey(after=60.0)
        assert opened.seats.pids_named("numad") == ()


def test_of_many_processes_of_one_name_some_are_told(tmp_path: Path) -> None:
    tree = {pid: {"stat": stat_line(pid, "sh", start_ticks=1, rss_pages=1)} for pid in range(100, 200)}
    with proc(proc_tree(tmp_path, tree), capacity=128) as opened:
        opened.survey()
        assert opened.seats.pids_named("sh") == tuple(range(100, 164))
