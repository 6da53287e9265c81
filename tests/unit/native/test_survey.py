"""Reading /proc natively: against psutil, and trees with hostile names, broken lines and vanished processes."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from balancerd.native import ProcessRow, ProcessSurvey, ThreadSurvey, survey, threads
from tests.unit.kernel.trees import proc_tree, stat_line
from tests.unit.native.memory import child

PF_KTHREAD = 0x00200000


@contextmanager
def directory(path: Path | str) -> Iterator[int]:
    descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def survey_of(path: Path | str, *, min_rss_pages: int = 0, capacity: int = 1024) -> ProcessSurvey:
    with directory(path) as proc_fd:
        return survey(proc_fd, min_rss_pages=min_rss_pages, capacity=capacity)


def threads_of(path: Path | str, pid: int, *, capacity: int = 64) -> ThreadSurvey:
    with directory(path) as proc_fd:
        return threads(proc_fd, pid, capacity=capacity)


def row_of(found: ProcessSurvey, pid: int) -> ProcessRow:
    return next(row for row in found.rows if row.pid == pid)


def test_a_real_process_agrees_with_psutil() -> None:
    with child(pages=4000, touched=3000) as other:
        pid = other.process.pid
        row = row_of(survey_of("/proc"), pid)
        process = psutil.Process(pid)
        with process.oneshot():
            assert (row.ppid, row.n_threads, row.comm) == (process.ppid(), process.num_threads(), process.name())
            assert row.state in {"S", "R"}
            ticks = os.sysconf("SC_CLK_TCK")
            boot_seconds = psutil.boot_time()
            assert row.start_ticks / ticks + boot_seconds == pytest.approx(process.create_time(), abs=1.5)
            times = process.cpu_times()
            assert row.cpu_ticks == pytest.approx((times.user + times.system) * ticks, abs=2)
            assert row.rss_pages * 4096 == pytest.approx(process.memory_info().rss, rel=0.02)
            assert row.rss_pages >= 3000
            assert row.minor_faults >= 3000
            assert 0 <= row.last_cpu < (os.cpu_count() or 1)
            assert not row.flags & PF_KTHREAD


def test_a_survey_of_proc_finds_the_processes_that_psutil_finds() -> None:
    before = set(psutil.pids())
    found = survey_of("/proc")
    after = set(psutil.pids())
    pids = {row.pid for row in found.rows}
    assert before & after <= pids
    assert found.processes == len(found.rows) == len(pids)
    assert found.kernel_threads == sum(bool(row.flags & PF_KTHREAD) for row in found.rows)
    assert found.unreadable == 0
    assert found.duration_seconds > 0


@pytest.mark.parametrize("capacity", [0, 1, 2, 1000])
def test_more_processes_than_there_is_room_for_are_all_found(tmp_path: Path, capacity: int) -> None:
    proc_tree(tmp_path, {pid: {"stat": stat_line(pid, "x", start_ticks=pid)} for pid in range(1, 120)})
    found = survey_of(tmp_path, capacity=capacity)
    assert sorted(row.pid for row in found.rows) == list(range(1, 120))
    assert found.processes == 119


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
    line = stat_line(7, comm, start_ticks=77, cpu_ticks=(3, 4), rss_pages=55, n_threads=2, cpu=9, flags=0x400040)
    proc_tree(tmp_path, {7: {"stat": line}})
    (row,) = survey_of(tmp_path).rows
    assert row == ProcessRow(
        pid=7,
        ppid=1,
        start_ticks=77,
        cpu_ticks=7,
        rss_pages=55,
        minor_faults=2009,
        major_faults=0,
        n_threads=2,
        last_cpu=9,
        flags=0x400040,
        state="S",
        comm=comm,
    )


def test_a_name_that_is_not_utf8_is_told_in_ascii(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7/stat").write_bytes(stat_line(7, "?", start_ticks=1).encode().replace(b"?", b"\xff\xfe"))
    (row,) = survey_of(tmp_path).rows
    assert row.comm == r"\xff\xfe"


def test_a_name_longer_than_any_is_cut(tmp_path: Path) -> None:
    proc_tree(tmp_path, {7: {"stat": stat_line(7, "x" * 300, start_ticks=1)}})
    (row,) = survey_of(tmp_path).rows
    assert row.comm == "x" * 64


def test_small_processes_and_kernel_threads_are_counted_without_a_row(tmp_path: Path) -> None:
    stats = {
        1: stat_line(1, "large", start_ticks=1, rss_pages=1000),
        2: stat_line(2, "small", start_ticks=1, rss_pages=999),
        3: stat_line(3, "kthread", start_ticks=1, rss_pages=0, flags=0x208040),
        4: stat_line(4, "kthread that borrows memory", start_ticks=1, rss_pages=5000, flags=0x208040),
    }
    proc_tree(tmp_path, {pid: {"stat": text} for pid, text in stats.items()})
    found = survey_of(tmp_path, min_rss_pages=1000)
    assert [row.comm for row in found.rows] == ["large"]
    assert (found.processes, found.kernel_threads) == (4, 2)
    assert len(survey_of(tmp_path, min_rss_pages=0).rows) == 4


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
    proc_tree(tmp_path, {8: {"stat": stat_line(8, "fine", start_ticks=1)}})
    found = survey_of(tmp_path)
    assert [row.pid for row in found.rows] == [8]
    assert (found.processes, found.vanished, found.unreadable) == (1, vanished, unreadable)


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


def test_threads_of_this_process_agree_with_psutil() -> None:
    stop = threading.Event()
    others = [threading.Thread(target=stop.wait) for _ in range(5)]
    for thread in others:
        thread.start()
    try:
        found = threads_of("/proc", os.getpid(), capacity=2)
        expected = {thread.id for thread in psutil.Process().threads()}
    finally:
        stop.set()
        for thread in others:
            thread.join()
    assert {row.tid for row in found.rows} == expected
    assert len(expected) >= 6
    assert {row.state for row in found.rows} <= {"S", "R"}
    assert (found.vanished, found.unreadable) == (0, 0)


def test_threads_are_read_as_their_lines_say(tmp_path: Path) -> None:
    stats = {
        "stat": stat_line(7, "x", start_ticks=1),
        "task/7/stat": stat_line(7, "x", start_ticks=1, cpu_ticks=(10, 1), cpu=3),
        "task/8/stat": stat_line(8, "odd) name", start_ticks=2, cpu_ticks=(20, 2), cpu=4),
        "task/9/other": "",
    }
    proc_tree(tmp_path, {7: stats})
    found = threads_of(tmp_path, 7)
    rows = sorted((row.tid, row.start_ticks, row.cpu_ticks, row.last_cpu, row.state) for row in found.rows)
    assert rows == [(7, 1, 11, 3, "S"), (8, 2, 22, 4, "S")]
    assert (found.vanished, found.unreadable) == (1, 0)


def test_threads_of_a_process_that_is_gone_are_an_error_with_its_pid(tmp_path: Path) -> None:
    with pytest.raises(ProcessLookupError, match="process 7"):
        threads_of(tmp_path, 7)


def test_a_root_that_is_no_directory_is_an_error() -> None:
    with Path("/dev/null").open() as file, pytest.raises(NotADirectoryError):
        survey(file.fileno(), min_rss_pages=0)
