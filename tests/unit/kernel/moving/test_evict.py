import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from balancerd import native
from balancerd.kernel.errors import AccountingError, ParseError
from balancerd.kernel.machine.memory import parse_swap
from balancerd.kernel.moving.claims import Claims
from balancerd.kernel.moving.evict import Evictor
from balancerd.kernel.moving.pacing import Pacer
from balancerd.kernel.observe import ObserveKernel
from balancerd.kernel.placement.mappings import Mappings
from balancerd.model.decision import Reason
from balancerd.model.ids import ProcessId
from balancerd.model.migration import EvictionOutcome, EvictionStep, Range
from balancerd.native.records import Eviction
from tests.unit.fakes import FakeClock, FakeKernel
from tests.unit.kernel.children import child
from tests.unit.kernel.worlds import (
    CAPTURED,
    HUGE,
    NO_LIMITS,
    OWN,
    PAGE,
    START,
    AtOnce,
    World,
    anon,
    make_eviction,
    make_world,
    never,
)

SWAP = "MemTotal: 1 kB\nSwapTotal: 8 kB\nSwapFree: 8 kB\n"
FILE = "{:x}-{:x} r--s 00000000 08:01 99 /data\n"


def whole(n_pages: int) -> list[Range]:
    return [Range(start=START, end=START + n_pages * PAGE, page_bytes=PAGE)]


def swapping(root: Path, n_pages: int = 1000) -> World:
    world = make_world(root, n_pages)
    world.write({"proc/meminfo": SWAP})
    return world


def evict(world: World, step: EvictionStep, should_stop: Callable[[], bool] = never) -> EvictionOutcome:
    outcome = world.evictor.evict(step, should_stop)
    assert outcome.looked_pages == outcome.absent_pages + outcome.other_pages + outcome.advised_pages
    assert outcome.advised_pages == outcome.evicted_pages + outcome.kept_pages
    assert world.claims.processes() == frozenset()
    return outcome


def test_a_step_evicts_its_ranges_to_the_end_and_counts_what_stays(tmp_path: Path) -> None:
    world = swapping(tmp_path)
    world.core.kept = {START + page * PAGE for page in range(7)}
    del world.core.nodes[START + 500 * PAGE]
    outcome = evict(world, make_eviction(whole(1000)))
    assert (outcome.looked_pages, outcome.absent_pages, outcome.advised_pages) == (1000, 1, 999)
    assert (outcome.evicted_pages, outcome.kept_pages) == (992, 7)
    assert sum(outcome.call_seconds) == pytest.approx(999e-6)
    assert (outcome.resume_at, outcome.stopped_by, outcome.detail) == (None, None, "")
    assert set(world.core.nodes) == world.core.kept


def test_pages_are_only_marked_as_cold_when_that_was_asked(tmp_path: Path) -> None:
    world = make_world(tmp_path, 1000)  # without swap: nothing leaves memory now
    world.write({"proc/meminfo": "SwapFree: 0 kB\n"})
    outcome = evict(world, make_eviction(whole(1000), cold_only=True))
    assert (outcome.advised_pages, outcome.kept_pages, outcome.evicted_pages) == (1000, 1000, 0)
    assert all(call["cold_only"] for call in world.core.calls)


def test_the_budget_is_kept_and_the_next_step_goes_on_behind_it(tmp_path: Path) -> None:
    world = swapping(tmp_path)
    first = evict(world, make_eviction(whole(1000), budget_pages=600))
    assert (first.advised_pages, first.resume_at, first.stopped_by) == (600, START + 600 * PAGE, None)
    assert first.resume_at is not None
    second = evict(world, replace(make_eviction(whole(1000)), resume_at=first.resume_at))
    assert (second.advised_pages, second.resume_at) == (400, None)


@pytest.mark.parametrize("text", ["SwapTotal: 0 kB\nSwapFree: 0 kB\n", "MemTotal: 1 kB\n"])
def test_without_swap_only_pages_of_files_go(tmp_path: Path, text: str) -> None:
    world = make_world(tmp_path, 100)
    world.write({"proc/meminfo": text})
    world.fill(50, start=START + 100 * PAGE)
    world.maps(anon(START, 100), FILE.format(START + 100 * PAGE, START + 150 * PAGE))
    outcome = evict(world, make_eviction(whole(150)))
    assert outcome.evicted_pages == 50
    assert outcome.detail == "there is no swap space for what is not of a file"
    assert world.core.ranges == [[(START + 100 * PAGE, START + 150 * PAGE, PAGE)]]


@pytest.mark.parametrize("kind", [None, "r-xp", "rw-p"])
def test_without_swap_memory_of_its_own_stays(tmp_path: Path, kind: str | None) -> None:
    """Anonymous memory, and what it may have written to in a private mapping of a file."""
    world = make_world(tmp_path, 100)
    world.write({"proc/meminfo": "SwapFree: 0 kB\n"})
    if kind is not None:
        library = FILE.format(START + 100 * PAGE, START + 101 * PAGE)
        own = FILE.replace("r--s", "rw-p").format(START, START + 100 * PAGE)
        world.maps(own, library.replace("r--s", kind))
    outcome = evict(world, make_eviction(whole(100)))
    assert (world.core.calls, outcome.stopped_by, outcome.advised_pages) == ([], Reason.NO_SWAP, 0)
    assert outcome.resume_at == START


def test_hugetlb_pages_are_left_out(tmp_path: Path) -> None:
    world = swapping(tmp_path)
    at = START + (1 << 30)
    world.maps(anon(START, 10), f"{at:x}-{at + HUGE:x} rw-s 00000000 00:0f 99 /dev/hugepages/a\n")
    outcome = evict(world, make_eviction([*whole(10), Range(start=at, end=at + HUGE, page_bytes=HUGE)]))
    assert outcome.evicted_pages == 10
    assert outcome.detail == "hugetlb pages never leave memory"


def test_calls_are_paced_like_those_that_move(tmp_path: Path) -> None:
    world = swapping(tmp_path, 3000)
    world.pacer.pace = replace(NO_LIMITS, duty_ratio=0.5)
    outcome = evict(world, make_eviction(whole(3000)))
    waited = outcome.throttled_seconds["duty-cycle"]
    assert waited == pytest.approx(sum(outcome.call_seconds[:-1]))
    assert len(outcome.call_seconds) > 1


@pytest.mark.parametrize(("name", "reason"), [("memory", Reason.PRESSURE), ("cpu", None)])
def test_pressure_on_memory_ends_the_step_and_that_on_cpus_does_not(
    tmp_path: Path, name: str, reason: Reason | None
) -> None:
    world = swapping(tmp_path)
    world.pacer.pace = replace(NO_LIMITS, max_memory_pressure_ratio=0.1, max_cpu_pressure_ratio=0.1)
    world.write({f"proc/pressure/{name}": "some avg10=50.00 avg60=0.00 avg300=0.00 total=0\n"})
    assert evict(world, make_eviction(whole(1000))).stopped_by is reason


def test_a_stop_and_the_exit_of_the_process_end_the_step(tmp_path: Path) -> None:
    world = swapping(tmp_path, 8000)
    outcome = evict(world, make_eviction(whole(8000)), lambda: len(world.core.calls) == 2)
    assert (len(world.core.calls), outcome.stopped_by) == (2, Reason.STOPPING)
    assert outcome.resume_at == START + outcome.looked_pages * PAGE
    other = replace(make_eviction(whole(1000)), process=ProcessId(OWN.pid, 1))
    assert evict(world, other).stopped_by is Reason.EXITED


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ESRCH, Reason.EXITED),
        (errno.EINVAL, Reason.EXITED),
        (errno.EPERM, Reason.NO_ACCESS),
        (errno.ENOSYS, Reason.CALL_FAILED),
    ],
)
def test_a_refused_call_ends_the_step_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: Reason
) -> None:
    world = swapping(tmp_path)
    evict_once = world.core.evict
    monkeypatch.setattr(
        world.core, "evict", lambda *args, **kwargs: replace(evict_once(*args, **kwargs), error=number, is_done=False)
    )
    outcome = evict(world, make_eviction(whole(1000)))
    assert (len(world.core.calls), outcome.stopped_by) == (1, reason)
    assert outcome.detail.startswith(f"process_madvise: {errno.errorcode[number]} (")
    assert outcome.resume_at == START + outcome.looked_pages * PAGE


def test_pages_that_take_no_advice_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = swapping(tmp_path, 100)
    world.core.kept = {START, START + PAGE}
    evict_once = world.core.evict
    monkeypatch.setattr(
        world.core, "evict", lambda *args, **kwargs: replace(evict_once(*args, **kwargs), refused_pages=2)
    )
    outcome = evict(world, make_eviction(whole(100)))
    assert (outcome.kept_pages, outcome.stopped_by) == (2, None)
    assert outcome.detail == "2 pages are locked, or of a device, and take no such advice"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda done: replace(done, looked_pages=done.looked_pages + 1),
        lambda done: replace(done, evicted_pages=done.evicted_pages - 1),
        lambda done: replace(
            done, looked_pages=0, absent_pages=0, advised_pages=0, evicted_pages=0, kept_pages=0, is_done=False
        ),
    ],
    ids=["a page looked at and forgotten", "an advised page forgotten", "no progress"],
)
def test_sums_that_do_not_hold_are_never_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Eviction], Eviction]
) -> None:
    world = swapping(tmp_path)
    evict_once = world.core.evict
    monkeypatch.setattr(world.core, "evict", lambda *args, **kwargs: spoil(evict_once(*args, **kwargs)))
    with pytest.raises(AccountingError):
        world.evictor.evict(make_eviction(whole(1000)), never)


def test_a_real_process_is_advised_through_its_pidfd() -> None:
    clock = FakeClock()
    claims = Claims(Mappings(clock), AtOnce())
    with child("m = mmap.mmap(-1, 4 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS); m.write(b'x' * (4 << 20))") as (
        _,
        id_,
    ):
        vmas = [v for v in Mappings(clock).read(id_.pid) if v.end - v.start >= 4 << 20 and v.kind == "anon"]
        ranges = [Range(start=v.start, end=v.end, page_bytes=PAGE) for v in vmas]
        step = replace(make_eviction(ranges, cold_only=True), process=id_)
        outcome = Evictor(native, Pacer(clock, NO_LIMITS), claims).evict(step, never)
    assert (outcome.stopped_by, outcome.detail, outcome.resume_at) == (None, "", None)
    assert outcome.advised_pages >= 1024
    assert outcome.advised_pages == outcome.evicted_pages + outcome.kept_pages


def test_a_step_ends_when_its_share_of_the_swap_space_is_used(tmp_path: Path) -> None:
    world = swapping(tmp_path, 8000)
    looks = 0

    def fill_swap() -> bool:
        nonlocal looks
        looks += 1
        if looks == 3:
            world.write({"proc/meminfo": "SwapTotal: 10 kB\nSwapFree: 2 kB\n"})
        return False

    outcome = evict(world, make_eviction(whole(8000)), fill_swap)
    assert (outcome.stopped_by, outcome.detail) == (Reason.NO_SWAP, "80% of the swap space is used")
    assert 0 < outcome.advised_pages < 8000
    assert outcome.resume_at is not None


@pytest.mark.parametrize(("free_kib", "reason"), [(2, Reason.NO_SWAP), (3, None)])
def test_swap_is_full_when_the_configured_share_is_used(tmp_path: Path, free_kib: int, reason: Reason | None) -> None:
    world = make_world(tmp_path, 100)
    world.write({"proc/meminfo": f"SwapTotal: 10 kB\nSwapFree: {free_kib} kB\n"})
    assert evict(world, make_eviction(whole(100))).stopped_by is reason


def test_swap_is_read_as_the_kernel_writes_it() -> None:
    assert parse_swap((CAPTURED / "meminfo").read_bytes(), "m") == (0, 0)
    assert parse_swap(SWAP.encode(), "m") == (8192, 8192)
    assert parse_swap(b"MemTotal: 1 kB\n", "m") == (0, 0)
    with pytest.raises(ParseError, match="m:2: not an amount"):
        parse_swap(b"x\nSwapFree: much kB\n", "m")


def test_observing_evicts_nothing() -> None:
    step = make_eviction(whole(10))
    outcome = ObserveKernel(FakeKernel(FakeClock())).evict(step, never)
    assert (outcome.stopped_by, outcome.advised_pages, outcome.looked_pages) == (Reason.OBSERVE_MODE, 0, 0)
    assert outcome.resume_at == step.resume_at
