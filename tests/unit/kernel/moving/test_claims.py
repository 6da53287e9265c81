import errno
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from balancerd.kernel.errors import ChangedError, ClaimedError, ParseError, ProcessGoneError
from balancerd.kernel.moving.claims import EVERYTHING, REFUSALS, Claims, cut, why_refused
from balancerd.kernel.placement.mappings import Mappings
from balancerd.model.decision import Reason
from balancerd.model.ids import ProcessId
from balancerd.model.migration import Range
from balancerd.model.sample import Vma, VmaKind
from tests.unit.fakes import FakeClock
from tests.unit.kernel.children import child
from tests.unit.kernel.worlds import HUGE, OWN, PAGE, START, AtOnce, anon, make_world

K = VmaKind
TRY_LOCK = """
import fcntl, sys
file = open(sys.argv[1])
try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    print("taken", flush=True)
except BlockingIOError:
    print("refused", flush=True)
sys.stdin.read()
"""


def pages(first: int, end: int, page_bytes: int = PAGE) -> Range:
    return Range(start=START + first * PAGE, end=START + end * PAGE, page_bytes=page_bytes)


def vma(first: int, end: int, kind: VmaKind = K.ANON, *, name: str = "", program: bool = False) -> Vma:
    return Vma(start=START + first * PAGE, end=START + end * PAGE, kind=kind, name=name, program=program)


def live_claims() -> Claims:
    return Claims(Mappings(FakeClock()), AtOnce())


def mapped(process: ProcessId) -> tuple[Range, ...]:
    """A range of a live process that may move."""
    heap = next(v for v in Mappings(FakeClock()).read(process.pid) if v.kind in {K.ANON, K.HEAP})
    return (Range(start=heap.start, end=heap.end, page_bytes=PAGE),)


@pytest.mark.parametrize(
    ("wanted", "vmas", "left"),
    [
        ([pages(0, 10)], [vma(0, 10)], [pages(0, 10)]),
        ([pages(0, 10)], [], []),
        ([pages(2, 8)], [vma(0, 10)], [pages(2, 8)]),
        ([pages(0, 10)], [vma(2, 4), vma(6, 20)], [pages(2, 4), pages(6, 10)]),
        ([pages(0, 10)], [vma(0, 4), vma(4, 10, K.HEAP)], [pages(0, 10)]),
        ([pages(0, 5), pages(5, 10)], [vma(0, 10)], [pages(0, 5), pages(5, 10)]),
        ([pages(0, 4), pages(6, 10)], [vma(2, 7)], [pages(2, 4), pages(6, 7)]),
        ([pages(0, 10)], [vma(0, 4, K.SPECIAL), vma(4, 10, K.STACK)], [pages(4, 10)]),
        ([pages(0, 10)], [vma(0, 10, K.HUGETLB)], []),
        ([pages(0, 1024, HUGE)], [vma(0, 1024, K.HUGETLB)], [pages(0, 1024, HUGE)]),
        ([pages(0, 1024, HUGE)], [vma(0, 1024, K.SHMEM)], [pages(0, 1024, HUGE)]),
        ([pages(0, 1024, HUGE)], [vma(0, 1024, K.ANON)], []),
        ([pages(0, 1024, HUGE)], [vma(3, 1024, K.SHMEM)], [pages(512, 1024, HUGE)]),
        ([pages(0, 1024, HUGE)], [vma(3, 513, K.SHMEM)], []),
        ([pages(0, 4)], [vma(0, 4, K.FILE, name="/data")], [pages(0, 4)]),
        (
            [pages(0, 9)],
            [vma(0, 4, K.FILE, name="/lib"), vma(4, 5, K.FILE, name="/lib", program=True), vma(5, 9, K.FILE)],
            [pages(0, 9)],
        ),
    ],
)
def test_ranges_are_cut_to_what_is_still_there_and_still_of_that_sort(
    wanted: Sequence[Range], vmas: Sequence[Vma], left: Sequence[Range]
) -> None:
    assert cut(wanted, vmas) == tuple(left)


def test_a_claim_holds_the_process_and_is_given_back(tmp_path: Path) -> None:
    world = make_world(tmp_path, 100)
    with world.claims.claim(OWN, [pages(0, 100)]) as claim:
        assert world.claims.processes() == {OWN}
        assert claim.held.alive()
        assert claim.ranges == (pages(0, 100),)
        assert [v.kind for v in claim.vmas] == [K.ANON]
        assert claim.detail == ""
    assert world.claims.processes() == frozenset()


@pytest.mark.parametrize(
    ("other", "refused"),
    [((10, 20), True), ((0, 100), True), ((19, 30), True), ((5, 11), True), ((20, 30), False), ((0, 10), False)],
)
def test_in_one_process_only_claims_that_overlap_exclude_each_other(
    tmp_path: Path, other: tuple[int, int], refused: bool
) -> None:
    world = make_world(tmp_path, 100)
    with world.claims.claim(OWN, [pages(10, 20)]):
        if refused:
            with pytest.raises(ClaimedError, match="already"), world.claims.claim(OWN, [pages(*other)]):
                pass
        else:
            with world.claims.claim(OWN, [pages(*other)]) as claim:
                assert claim.ranges == (pages(*other),)
        assert world.claims.processes() == {OWN}
    assert world.claims.processes() == frozenset()


def test_the_lock_stays_until_the_last_claim_on_a_process_is_given_back() -> None:
    with child() as (_, id_):
        (heap,) = mapped(id_)
        halves = [
            (Range(start=heap.start, end=heap.start + PAGE, page_bytes=PAGE),),
            (Range(start=heap.start + PAGE, end=heap.end, page_bytes=PAGE),),
        ]
        ours, others = live_claims(), live_claims()
        with ours.claim(id_, halves[0]):
            with ours.claim(id_, halves[1]):
                pass
            with pytest.raises(ClaimedError, match="another program"), others.claim(id_, halves[1]):
                pass
        with others.claim(id_, halves[1]):
            pass


def test_two_programs_exclude_each_other_by_the_maps_of_the_target() -> None:
    with child() as (_, id_):
        ranges = mapped(id_)
        argv = [sys.executable, "-ISE", "-c", TRY_LOCK, f"/proc/{id_.pid}/maps"]
        with live_claims().claim(id_, ranges):
            refused = subprocess.run(argv, input="", capture_output=True, text=True, check=True)
        assert refused.stdout == "refused\n"
        other = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "taken\n"
            with pytest.raises(ClaimedError, match=f"/proc/{id_.pid}/maps"), live_claims().claim(id_, ranges):
                pass
        finally:
            other.kill()
            other.communicate()
        with live_claims().claim(id_, ranges) as claim:  # the lock has ended with its holder
            assert claim.ranges == ranges


def test_a_claim_is_given_back_whatever_happens_to_its_holder(tmp_path: Path) -> None:
    world = make_world(tmp_path, 10)
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    for maps, error in ((anon(START + HUGE, 10), ChangedError), ("nonsense\n", ParseError)):
        world.maps(maps)
        with pytest.raises(error), world.claims.claim(OWN, [pages(0, 10)]):
            pass
    world.maps(anon(START, 10))
    with pytest.raises(ZeroDivisionError), world.claims.claim(OWN, [pages(0, 10)]):
        raise ZeroDivisionError
    with pytest.raises(ProcessGoneError), world.claims.claim(ProcessId(OWN.pid, 1), [pages(0, 10)]):
        pass
    with world.claims.claim(OWN, [pages(0, 10)]):
        pass
    assert world.claims.processes() == frozenset()
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before


def test_a_process_that_exits_while_it_is_claimed_is_gone(tmp_path: Path) -> None:
    world = make_world(tmp_path, 10)
    with child() as (process, id_):
        files = {"stat": Path(f"/proc/{id_.pid}/stat").read_text(), "maps": anon(START, 10)}
        world.write({f"proc/{id_.pid}/{name}": text for name, text in files.items()})
        with world.claims.claim(id_, [pages(0, 10)]) as claim:
            process.kill()
            process.wait()
            assert not claim.held.alive()
        with pytest.raises(ProcessGoneError), world.claims.claim(id_, [pages(0, 10)]):
            pass


def test_a_process_that_exits_while_its_mappings_are_read_is_gone(tmp_path: Path) -> None:
    class Slow(Mappings):
        def read(self, pid: int) -> tuple[Vma, ...]:
            found = super().read(pid)
            process.kill()
            process.wait()
            return found

    world = make_world(tmp_path, 10)
    with child() as (process, id_):
        files = {"stat": Path(f"/proc/{id_.pid}/stat").read_text(), "maps": anon(START, 10)}
        world.write({f"proc/{id_.pid}/{name}": text for name, text in files.items()})
        claims = Claims(Slow(FakeClock(), str(tmp_path / "proc")), AtOnce())
        with pytest.raises(ProcessGoneError, match="has exited"), claims.claim(id_, [pages(0, 10)]):
            pass


def test_everything_can_be_claimed_and_is_not_cut(tmp_path: Path) -> None:
    world = make_world(tmp_path, 10)
    with world.claims.claim(OWN, EVERYTHING) as claim:
        assert (claim.ranges, claim.detail) == (EVERYTHING, "")
        with pytest.raises(ClaimedError), world.claims.claim(OWN, [pages(3, 4)]):
            pass


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ClaimedError("x"), Reason.CLAIMED),
        (ChangedError("x"), Reason.CHANGED),
        (ProcessGoneError("x"), Reason.EXITED),
        (PermissionError(errno.EACCES, "x"), Reason.NO_ACCESS),
        (ParseError("p", 1, b"x", "x"), Reason.UNREADABLE),
        (OSError(errno.EIO, "x"), Reason.CALL_FAILED),
    ],
)
def test_every_refusal_has_its_reason(error: Exception, reason: Reason) -> None:
    assert isinstance(error, REFUSALS)
    assert why_refused(error) == (reason, str(error))
