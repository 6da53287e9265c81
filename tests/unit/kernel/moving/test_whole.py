import errno
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest

from balancerd import native
from balancerd.kernel.moving.claims import Claims
from balancerd.kernel.moving.whole import WholeMover, is_one_call
from balancerd.kernel.observe import ObserveKernel
from balancerd.kernel.placement.mappings import Mappings
from balancerd.kernel.placement.reader import PlacementReader
from balancerd.model.decision import Reason
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import WholeMove
from balancerd.native.records import Placement, RangePlacement
from tests.unit.fakes import FakeClock, FakeKernel
from tests.unit.kernel.children import child
from tests.unit.kernel.worlds import OWN, PAGE, START, AtOnce, FakeCore, World, anon, make_step, make_world, unpack

MIB = 1 << 20


class WholeCore:
    """Moves the table of a world as migrate_pages(2) does, or is refused."""

    def __init__(self, world: World, refused: int = 0) -> None:
        self.world = world
        self.refused = refused
        self.calls: list[tuple[int, tuple[int, ...], tuple[int, ...]]] = []
        self.after: Callable[[], object] = lambda: None

    def migrate_process(self, pid: int, sources: Iterable[int], targets: Iterable[int]) -> int:
        old, new = tuple(sources), tuple(targets)
        self.calls.append((pid, old, new))
        if self.refused:
            raise OSError(self.refused, "refused")
        nodes = self.world.core.nodes
        for address, node in nodes.items():
            if node in old:
                nodes[address] = new[old.index(node) % len(new)]
        self.world.clock.time += 0.5
        self.after()
        return 3


def nodes(target_of: Mapping[int, int]) -> dict[NodeId, NodeId]:
    return {NodeId(a): NodeId(b) for a, b in target_of.items()}


def make_whole(root: Path, n_pages: int = 300) -> World:
    world = make_world(root, n_pages)
    world.fill(n_pages // 3, node=0)
    world.write({f"proc/{OWN.pid}/statm": f"{n_pages} {n_pages} 0 0 0 0 0\n"})
    world.write({f"proc/{OWN.pid}/numa_maps": f"{START:x} default anon={n_pages} N1={n_pages} kernelpagesize_kB=4\n"})
    return world


def move(world: World, core: WholeCore, target_of: Mapping[int, int], process: ProcessId = OWN) -> WholeMove:
    placements = PlacementReader(world.core, world.clock, str(world.root / "proc"), lambda: 0.5, samples=4096)
    done = WholeMover(core, world.clock, world.claims, placements).move(process, nodes(target_of), n_nodes=4)
    assert world.claims.processes() == frozenset()
    return done


def test_a_whole_process_moves_in_one_call_and_is_counted_before_and_after(tmp_path: Path) -> None:
    world = make_whole(tmp_path)
    core = WholeCore(world)
    done = move(world, core, {1: 3, 0: 2})
    assert core.calls == [(OWN.pid, (0, 1), (2, 3))]
    assert done.before_bytes == {0: 100 * PAGE, 1: 200 * PAGE}
    assert done.after_bytes == {2: 100 * PAGE, 3: 200 * PAGE}
    assert done.not_moved_pages == 3
    assert done.seconds == pytest.approx(0.5)
    assert (done.stopped_by, done.detail) == (None, "")


class HugeProcess(FakeCore):
    """All of the pages that are asked for are on node 1."""

    def placement(
        self, pid: int, ranges: native.RangeArray, *, n_nodes: int, samples: int = 0, phase: float = 0.0
    ) -> Placement:
        del pid, phase
        (row,) = unpack(ranges)
        asked = samples or (row[1] - row[0]) // PAGE
        return Placement(
            on_node=(),
            by_errno=(),
            queried_pages=asked,
            unwritten_pages=0,
            per_range=(RangePlacement(on_node=(0, asked, 0, 0)[:n_nodes], absent_pages=0, other_pages=0),),
            calls=1,
            duration_seconds=0.0,
            longest_call_seconds=0.0,
        )


def test_a_process_small_enough_is_asked_for_every_page(tmp_path: Path) -> None:
    world = make_whole(tmp_path)
    world.core = HugeProcess(world.clock)
    world.maps(anon(START, 4 << 18))
    done = move(world, WholeCore(world), {1: 3})
    assert world.core.samples == [(4 << 18, 4 << 18)] * 2
    assert done.before_bytes == {1: 4 << 30}


def test_a_process_too_large_to_ask_is_counted_by_numa_maps(tmp_path: Path) -> None:
    world = make_whole(tmp_path)
    world.maps(anon(START, 5 << 18))
    done = move(world, WholeCore(world), {1: 3})
    assert world.core.samples == []
    assert done.before_bytes == {1: 300 * PAGE}, "as its numa_maps says"


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ESRCH, Reason.EXITED),
        (errno.EPERM, Reason.NO_ACCESS),
        (errno.EINVAL, Reason.CALL_FAILED),
        (errno.ENOMEM, Reason.NO_MEMORY),
    ],
)
def test_a_refused_call_tells_its_reason_and_what_was_before(tmp_path: Path, number: int, reason: Reason) -> None:
    world = make_whole(tmp_path)
    done = move(world, WholeCore(world, refused=number), {1: 3})
    assert (done.stopped_by, done.not_moved_pages, done.seconds) == (reason, None, 0.0)
    assert done.detail.startswith(f"migrate_pages: {errno.errorcode[number]} (")
    assert done.before_bytes == done.after_bytes == {0: 100 * PAGE, 1: 200 * PAGE}


def test_a_process_that_is_gone_or_claimed_is_not_touched(tmp_path: Path) -> None:
    world = make_whole(tmp_path)
    core = WholeCore(world)
    assert move(world, core, {1: 3}, ProcessId(OWN.pid, 1)).stopped_by is Reason.EXITED
    with world.claims.claim(OWN, make_step(10).ranges):
        placements = PlacementReader(world.core, world.clock, str(world.root / "proc"))
        claimed = WholeMover(core, world.clock, world.claims, placements).move(OWN, nodes({1: 3}), n_nodes=4)
    assert claimed.stopped_by is Reason.CLAIMED
    assert core.calls == []


def test_a_process_that_ends_behind_the_call_is_nowhere_afterwards(tmp_path: Path) -> None:
    world = make_whole(tmp_path)
    core = WholeCore(world)
    core.after = (tmp_path / f"proc/{OWN.pid}/statm").unlink
    done = move(world, core, {1: 3})
    assert (done.not_moved_pages, done.after_bytes, done.stopped_by) == (3, {}, None)
    assert done.detail.startswith("unknown where its pages are now")


@pytest.mark.parametrize(
    ("target_of", "is_one"),
    [
        ({0: 2, 1: 3}, True),
        ({0: 1}, True),
        ({0: 3, 1: 3}, True),
        ({0: 2, 1: 3, 4: 2}, True),
        ({0: 1, 1: 2}, True),
        ({0: 3, 1: 2}, False),
        ({0: 2, 1: 2, 4: 3}, False),
        ({}, False),
    ],
)
def test_only_maps_that_keep_the_order_of_nodes_are_one_call(
    tmp_path: Path, target_of: Mapping[int, int], is_one: bool
) -> None:
    assert is_one_call(nodes(target_of)) is is_one
    if not is_one:
        world = make_whole(tmp_path)
        core = WholeCore(world)
        done = move(world, core, target_of)
        assert (core.calls, done.stopped_by) == ([], Reason.CALL_FAILED)
        assert "ascending order" in done.detail


def test_a_real_process_stays_on_the_only_node() -> None:
    clock = FakeClock()
    claims = Claims(Mappings(clock), AtOnce())
    placements = PlacementReader(native, clock)
    with child(f"m = mmap.mmap(-1, {8 * MIB}); m.write(b'x' * {8 * MIB})") as (_, id_):
        n_nodes = 1 + max(placements.read(id_, n_nodes=64, rss_bytes=64 * MIB).bytes_by_node)
        done = WholeMover(native, clock, claims, placements).move(id_, nodes({0: 0}), n_nodes=n_nodes)
    assert (done.stopped_by, done.not_moved_pages) == (None, 0)
    before, after = sum(done.before_bytes.values()), sum(done.after_bytes.values())
    assert before > 8 * MIB
    assert abs(after - before) < MIB  # it says that it is ready, and touches a page or two more


def test_observing_moves_no_process() -> None:
    done = ObserveKernel(FakeKernel(FakeClock())).migrate_whole(OWN, nodes({0: 1}))
    assert (done.stopped_by, done.not_moved_pages, done.before_bytes) == (Reason.OBSERVE_MODE, None, {})
