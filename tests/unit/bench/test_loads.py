"""The processes of loads.c: what they do to their memory, what they find wrong in it, and how they end."""

import contextlib
import os
import signal
import struct
from pathlib import Path

import pytest

from tests.bench.locality.loads import ROUNDS, Loads, Shape

pytestmark = pytest.mark.usefixtures("loads_program")
CPUS = sorted(os.sched_getaffinity(0))
FIRST, LAST = CPUS[0], CPUS[-1]
MIB = 1 << 20
PAGE = 4096
QUARTER_PAGES = 4 * MIB // PAGE // 4


def one(mib: int, access: str = "scan") -> Shape:
    return Shape(processes=[f"{FIRST}={mib}@{LAST}"], access=access)


def ignore(_number: int) -> None:
    """A marker that nobody counts."""


def writes_by_page(pid: int, mib: int) -> list[int]:
    """Read the second word of each page, which counts how often the page was written to."""
    areas = (line.split()[0] for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines())
    spans = [tuple(int(word, 16) for word in area.split("-")) for area in areas]
    count_bytes = -(-(mib * MIB // PAGE * 4) // PAGE) * PAGE
    (start,) = (end - mib * MIB for start, end in spans if end - start == count_bytes + mib * MIB)
    with Path(f"/proc/{pid}/mem").open("rb") as file:
        file.seek(start)
        memory = file.read(mib * MIB)
    return [struct.unpack_from("=Q", memory, offset + 8)[0] for offset in range(0, len(memory), PAGE)]


def has_ended(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] in "XZ"


def test_a_list_leads_once_through_all_pages_before_it_begins_again() -> None:
    with Loads(one(4, "list"), work=4 * MIB // PAGE // ROUNDS) as load:
        load.work(ignore)
        assert writes_by_page(load.pids[0], 4) == [1] * (4 * MIB // PAGE)


def test_a_scan_writes_as_often_as_there_are_rounds_and_all_over() -> None:
    at_marks: list[int] = []
    with Loads(one(4), work=100) as load:
        load.work(lambda _: at_marks.append(sum(writes_by_page(load.pids[0], 4))))
        writes = writes_by_page(load.pids[0], 4)
    assert sum(writes) == 100 * ROUNDS
    assert all(sum(writes[i : i + 64]) for i in range(0, len(writes), 64))
    assert at_marks[0] == 0
    assert 75 * ROUNDS <= at_marks[1] <= at_marks[2] == 100 * ROUNDS


@pytest.mark.parametrize(("work", "quarters"), [(10, [10, 0, 0, 0]), (35, [10, 10, 10, 5]), (45, [15, 10, 10, 10])])
def test_phases_use_a_quarter_of_the_memory_at_a_time(work: int, quarters: list[int]) -> None:
    with Loads(one(4, "phases:10"), work) as load:
        load.work(ignore)
        writes = writes_by_page(load.pids[0], 4)
    sums = [sum(writes[i : i + QUARTER_PAGES]) for i in range(0, len(writes), QUARTER_PAGES)]
    assert sums == [n * ROUNDS for n in quarters]


@pytest.mark.parametrize(
    ("shape", "part", "offset"),
    [
        pytest.param(one(2), 0, 0, id="a link"),
        pytest.param(one(2), 0, 2 * MIB - 64, id="the last link"),
        pytest.param(one(2), 0, PAGE + 8, id="a count of writes"),
        pytest.param(one(2), 0, PAGE + 64 + 9, id="where no writes are counted"),
        pytest.param(one(2), 0, 16 + 7, id="which page it is"),
        pytest.param(one(2), 0, 2 * MIB - 1, id="the last byte"),
        pytest.param(one(2, "list"), 0, 5 * 64 + 40, id="of a list"),
        pytest.param(Shape(processes=[f"{FIRST}=1@{LAST}/{LAST}=1@{LAST}/all=1@{LAST}"]), 1, 77, id="of a thread"),
        pytest.param(Shape(processes=[f"{FIRST}=1@{LAST}/all=1@{FIRST}:1,{LAST}:1"]), 1, 99, id="of what all read"),
        pytest.param(Shape(processes=[f"{FIRST}=2@{FIRST}"], access="storm"), 0, 3 * PAGE, id="of a short life"),
    ],
)
def test_a_byte_that_is_wrong_does_not_pass(shape: Shape, part: int, offset: int) -> None:
    with Loads(shape, work=3) as load:
        load.say(f"flip {part} {offset}")
        load.work(ignore)
        with pytest.raises(RuntimeError, match=f"corrupt at byte {offset // 8 * 8} of part {part}"):
            load.finish()


def test_memory_that_was_never_used_is_verified_too() -> None:
    with Loads(one(2), work=3) as load:
        assert load.finish() == "verified 512 pages"
    with Loads(one(2), work=3) as load:
        load.say("flip 0 4096")
        with pytest.raises(RuntimeError, match="corrupt at byte 4096"):
            load.finish()


def test_the_smallest_work_reaches_three_quarters_and_its_end() -> None:
    marks: list[int] = []
    with Loads(one(1), work=1) as load:
        load.work(marks.append)
    assert marks == [1, 2, 3]


def test_a_process_that_dies_ends_the_work_with_an_error() -> None:
    def kill(_number: int) -> None:
        os.kill(load.pids[1], signal.SIGKILL)

    shape = Shape(processes=[f"{FIRST}=1@{LAST}", f"{LAST}=1@{FIRST}"])
    with Loads(shape, work=10**9) as load, pytest.raises(RuntimeError, match="said 'died"):
        load.work(kill)


def test_memory_that_cannot_be_had_is_an_error_at_the_start() -> None:
    with pytest.raises(RuntimeError, match="instead of 'ready'"):
        Loads(one(1 << 40), work=1)


@pytest.mark.parametrize(
    "shape",
    [
        Shape(processes=["0=1"]),
        Shape(processes=["0=1@0/"]),
        Shape(processes=["all=1@0"]),
        Shape(processes=["all=1@0/0=1@0"]),
        Shape(processes=["0=1@0,"]),
        Shape(processes=["0=1@0"], access="phases:0"),
        Shape(processes=["0=1@0"], access="scans"),
        Shape(processes=["0=1@0"], pages="huge"),
    ],
)
def test_what_is_not_understood_is_refused(shape: Shape, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="said '' instead of 'ready'"):
        Loads(shape, work=1)
    assert "not understood" in capfd.readouterr().err


def test_leaving_the_block_at_work_ends_all_processes() -> None:
    shape = Shape(processes=[f"{cpu}=2@{cpu}" for cpu in CPUS], access="storm")

    with contextlib.suppress(KeyboardInterrupt), Loads(shape, work=10**9) as load:
        load.say("go")
        raise KeyboardInterrupt
    assert all(map(has_ended, load.pids))
