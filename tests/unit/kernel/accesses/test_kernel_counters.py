"""What the kernel counts of hint faults: its text, the share that was local, and the source over trees of files."""

import re
from pathlib import Path

import pytest

from balancerd.kernel.accesses.kernel_counters import (
    KernelCounters,
    ThreadFaults,
    find_obstacle,
    local_ratio,
    parse_sched,
)
from balancerd.kernel.errors import ParseError, ProcessGoneError
from balancerd.model.access import AccessMethod
from balancerd.model.ids import NodeId, ProcessId
from tests.unit.fakes import FakeClock
from tests.unit.kernel.trees import MACHINES
from tests.unit.kernel.worlds import OWN

CAPTURED = (MACHINES / "one-node-6.18/proc/exhibit/sched").read_bytes()
PROCESS = ProcessId(7, 99)


def sched(node: int, pages: dict[int, tuple[int, int]], *, ran_seconds: float = 0.0) -> bytes:
    """The captured text, of a thread on `node` with (private, shared) pages by node (print_numa_stats)."""
    before, _, _ = CAPTURED.partition(b"current_node=")
    before = re.sub(rb"(se.sum_exec_runtime +: +)[\d.]+", rb"\g<1>%.6f" % (1e3 * ran_seconds), before)
    lines = [f"current_node={node}, numa_group_id=0"]
    lines += [
        f"numa_faults node={at} task_private={private} task_shared={shared} group_private=9 group_shared=8"
        for at, (private, shared) in pages.items()
    ]
    return before + "\n".join([*lines, ""]).encode()


def faults(node: int, *pages: int, ran_seconds: float = 0.0) -> ThreadFaults:
    held = {NodeId(at): n for at, n in enumerate(pages)}
    return ThreadFaults(node=NodeId(node), pages_by_node=held, ran_seconds=ran_seconds)


def write_thread(root: Path, tid: int, text: bytes) -> None:
    directory = root / f"7/task/{tid}"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "sched").write_bytes(text)
    (root / "7/stat").write_text("7 (x) S " + " ".join(["0"] * 18 + [str(PROCESS.start_ticks)] + ["0"] * 30) + "\n")


def test_a_thread_that_the_kernel_never_made_fault() -> None:
    assert parse_sched(CAPTURED, "sched") == faults(0, 0, ran_seconds=0.098933364)


def test_private_and_shared_faults_of_each_node_are_one_number_and_the_groups_are_none() -> None:
    text = sched(2, {0: (3, 4), 2: (3427, 1)}, ran_seconds=1.5)
    assert parse_sched(text, "sched") == ThreadFaults(
        node=NodeId(2), pages_by_node={NodeId(0): 7, NodeId(2): 3428}, ran_seconds=1.5
    )


def test_a_thread_may_be_named_like_a_line_of_its_file() -> None:
    text = b"x\ncurrent_node=5" + sched(2, {2: (1, 0)}).partition(b"bash")[2]
    assert text.startswith(b"x\ncurrent_node=5 (")
    assert parse_sched(text, "sched") == ThreadFaults(node=NodeId(2), pages_by_node={NodeId(2): 1}, ran_seconds=0.0)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(CAPTURED.partition(b"mm->numa_scan_seq")[0], id="no balancing in the kernel"),
        pytest.param(CAPTURED.partition(b"numa_faults")[0], id="no node"),
        pytest.param(b"", id="empty"),
    ],
)
def test_a_text_without_hint_faults_tells_nothing(text: bytes) -> None:
    assert parse_sched(text, "sched") is None


def test_numbers_that_are_none_are_told_with_their_line() -> None:
    text = sched(0, {0: (1, 2)}).replace(b"task_shared=2", b"task_shared=x")
    with pytest.raises(ParseError, match="not numbers of hint faults by node") as caught:
        parse_sched(text, "/proc/7/sched")
    assert caught.value.line_number == text.count(b"\n")


@pytest.mark.parametrize(
    ("threads", "ratio"),
    [
        ([], None),
        ([(faults(0, 0, 0), 1.0)], None),
        ([(faults(0, 10, 0), 1.0)], 1.0),
        ([(faults(1, 10, 0), 1.0)], 0.0),
        ([(faults(0, 60, 20), 1.0), (faults(1, 15, 5), 1.0)], 0.5),
        ([(faults(0, 60, 20), 3.0), (faults(1, 15, 5), 1.0)], 0.625),
        ([(faults(0, 9000, 0), 0.0), (faults(1, 15, 5), 1.0)], 0.25),  # what one counted that sleeps is history
        ([(faults(0, 9000, 0), 0.0), (faults(1, 0, 0), 1.0)], None),
        ([(faults(3, 10, 10), 1.0)], 0.0),  # on a node of which the kernel tells nothing
    ],
)
def test_the_share_of_pages_on_the_threads_own_node_by_how_long_each_ran(
    threads: list[tuple[ThreadFaults, float]], ratio: float | None
) -> None:
    assert local_ratio(threads) == (None if ratio is None else pytest.approx(ratio))


def test_a_window_tells_the_share_and_nothing_else(tmp_path: Path) -> None:
    write_thread(tmp_path, 7, sched(0, {0: (30, 0), 1: (10, 0)}, ran_seconds=5.0))
    write_thread(tmp_path, 8, sched(1, {0: (40, 0), 1: (15, 5)}, ran_seconds=9.0))
    (tmp_path / "7/task/9").mkdir()  # ended while it was read
    clock = FakeClock()
    source = KernelCounters(clock, procfs=str(tmp_path))
    source.open(PROCESS)
    clock.time += 2.0
    write_thread(tmp_path, 7, sched(0, {0: (30, 0), 1: (10, 0)}, ran_seconds=6.5))
    write_thread(tmp_path, 8, sched(1, {0: (40, 0), 1: (15, 5)}, ran_seconds=9.5))
    window = source.read(PROCESS)
    assert (window.method, window.process) == (AccessMethod.KERNEL_COUNTERS, PROCESS)
    assert window.local_ratio == pytest.approx((1.5 * 0.75 + 0.5 / 3) / 2.0)
    assert window.threads == 2
    assert (window.samples, window.hits, window.runs, window.regions) == (0, 0, (), ())
    assert (window.seconds, window.watched_seconds) == (2.0, 2.0)


def test_a_thread_that_filled_the_memory_and_sleeps_does_not_speak_for_those_that_run(tmp_path: Path) -> None:
    clock = FakeClock()
    source = KernelCounters(clock, procfs=str(tmp_path))
    write_thread(tmp_path, 7, sched(0, {0: (60_000, 0)}, ran_seconds=30.0))
    write_thread(tmp_path, 8, sched(1, {0: (0, 0)}, ran_seconds=1.0))
    source.open(PROCESS)
    clock.time += 2.0
    write_thread(tmp_path, 8, sched(1, {0: (0, 0)}, ran_seconds=2.0))
    assert source.read(PROCESS).local_ratio is None  # nobody who runs has been made to fault yet
    clock.time += 2.0
    write_thread(tmp_path, 8, sched(1, {0: (100, 0)}, ran_seconds=3.0))
    assert source.read(PROCESS).local_ratio == 0.0
    clock.time += 2.0
    assert source.read(PROCESS).local_ratio == 0.0  # nor did anybody run in this window: who did before still counts


def test_a_process_that_is_gone_another_one_and_one_that_was_closed(tmp_path: Path) -> None:
    write_thread(tmp_path, 7, sched(0, {0: (1, 0)}))
    source = KernelCounters(FakeClock(), procfs=str(tmp_path))
    with pytest.raises(ProcessGoneError, match="belongs to a process"):
        source.open(ProcessId(7, 98))
    with pytest.raises(ProcessGoneError):
        source.open(ProcessId(8, 99))
    source.open(PROCESS)
    source.close(PROCESS)
    source.close(PROCESS)
    with pytest.raises(KeyError):
        source.read(PROCESS)


@pytest.mark.parametrize(
    ("mode", "text", "seen", "fix"),
    [
        ("0", CAPTURED, "kernel.numa_balancing=0", "sysctl -w kernel.numa_balancing=1"),
        ("1", None, "there is no /proc/PID/sched", "CONFIG_SCHED_DEBUG=y"),
        ("1", CAPTURED.partition(b"mm->numa")[0], "shows no numa_faults", "CONFIG_NUMA_BALANCING=y"),
        ("1", CAPTURED, None, None),
    ],
)
def test_what_is_in_the_way(tmp_path: Path, mode: str, text: bytes | None, seen: str | None, fix: str | None) -> None:
    (tmp_path / "proc/sys/kernel").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/numa_balancing").write_text(f"{mode}\n")
    (tmp_path / "proc/self").mkdir()
    if text is not None:
        (tmp_path / "proc/self/sched").write_bytes(text)
    found = find_obstacle(tmp_path)
    if seen is None or fix is None:
        assert found is None
    else:
        assert found is not None
        assert seen in found.seen
        assert fix in found.fix


@pytest.mark.skipif(not Path("/proc/self/sched").exists(), reason="no CONFIG_SCHED_DEBUG")
def test_this_process_is_read_for_real() -> None:
    source = KernelCounters(FakeClock())
    source.open(OWN)
    window = source.read(OWN)
    told = [parse_sched(path.read_bytes(), str(path)) for path in Path("/proc/self/task").glob("*/sched")]
    assert window.threads == sum(faults is not None for faults in told)
    if not any(faults and any(faults.pages_by_node.values()) for faults in told):
        assert window.local_ratio is None
