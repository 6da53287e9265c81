import errno
from pathlib import Path

import pytest

from balancerd import native
from balancerd.kernel.moving.verify import Verifier, total
from balancerd.kernel.observe import ObserveKernel
from balancerd.kernel.placement.reader import estimate
from balancerd.model.decision import Reason, Skip
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import MovedRun, RunsNow, Verified, VerifyRequest
from tests.unit.fakes import FakeClock, FakeKernel
from tests.unit.kernel.children import child
from tests.unit.kernel.worlds import OWN, PAGE, START, World, make_world


def run(first: int, n_pages: int, target: int = 3) -> MovedRun:
    start = START + first * PAGE
    return MovedRun(start=start, end=start + n_pages * PAGE, page_bytes=PAGE, source=NodeId(1), target=NodeId(target))


def request(*runs: MovedRun, pages: int = 1000, process: ProcessId = OWN) -> VerifyRequest:
    return VerifyRequest(process=process, runs=runs, asked_pages=pages)


def verified(on_target: int = 0, elsewhere: int = 0, absent: int = 0, unknown: int = 0) -> Verified:
    return Verified(
        asked_pages=on_target + elsewhere + absent + unknown,
        on_target_pages=on_target,
        elsewhere_pages=elsewhere,
        absent_pages=absent,
        unknown_pages=unknown,
    )


def verifier(world: World) -> Verifier:
    return Verifier(world.core, str(world.root / "proc"), str(world.root / "sys"), phase=lambda: 0.5)


def test_each_run_is_judged_by_its_own_target(tmp_path: Path) -> None:
    world = make_world(tmp_path, 100)
    world.fill(30, node=3)
    world.core.nodes[START + 3 * PAGE] = -errno.EFAULT
    del world.core.nodes[START + 4 * PAGE]
    now = verifier(world).verify(request(run(0, 20), run(20, 30), run(50, 10, target=1), run(60, 10, target=7)))
    assert isinstance(now, RunsNow)
    assert now.runs == (verified(18, absent=1, unknown=1), verified(10, 20), verified(10), verified(0, 10))
    assert now.total == verified(38, 30, 1, 1) == total(now.runs)


def test_many_pages_are_judged_by_a_few_that_are_spread(tmp_path: Path) -> None:
    world = make_world(tmp_path, 1000)
    world.fill(500, node=3)
    now = verifier(world).verify(request(run(0, 400), run(400, 600), pages=100))
    assert isinstance(now, RunsNow)
    assert now.runs == (verified(40), verified(10, 50))


@pytest.mark.parametrize("ask", [request(pages=10), request(run(0, 10), pages=0)])
def test_a_request_for_nothing_is_answered_by_nothing(tmp_path: Path, ask: VerifyRequest) -> None:
    now = verifier(make_world(tmp_path, 10)).verify(ask)
    assert isinstance(now, RunsNow)
    assert now.total == verified()
    assert len(now.runs) == len(ask.runs)


def test_a_process_that_is_gone_or_refuses_is_skipped(tmp_path: Path) -> None:
    world = make_world(tmp_path, 10)
    other = verifier(world).verify(request(run(0, 10), process=ProcessId(OWN.pid, OWN.start_ticks + 1)))
    answers = []
    for number in (errno.ESRCH, errno.EINVAL, errno.EPERM):
        world.core.gone = number
        answers.append(verifier(world).verify(request(run(0, 10))))
    (tmp_path / "sys/devices/system/node/online").write_text("nonsense\n")
    unread = verifier(world).verify(request(run(0, 10)))
    reasons = [(skip.by, skip.process.pid, skip.reason) for skip in (other, *answers, unread) if isinstance(skip, Skip)]
    assert reasons == [
        ("kernel", OWN.pid, Reason.VANISHED),
        ("kernel", OWN.pid, Reason.VANISHED),
        ("kernel", OWN.pid, Reason.VANISHED),
        ("kernel", OWN.pid, Reason.NO_ACCESS),
        ("kernel", OWN.pid, Reason.UNREADABLE),
    ]


def test_pages_of_a_real_process_are_where_they_are() -> None:
    with child("m = mmap.mmap(-1, 4 << 20); m.write(b'x' * (4 << 20))") as (_, id_):
        biggest = max(estimate(id_.pid, exact=True).vmas, key=lambda p: max(p.pages_by_node.values(), default=0.0))
        (node,) = biggest.pages_by_node
        moved = MovedRun(
            start=biggest.vma.start, end=biggest.vma.end, page_bytes=PAGE, source=NodeId(node + 1), target=node
        )
        now = Verifier(native).verify(VerifyRequest(process=id_, runs=(moved,), asked_pages=64))
    assert isinstance(now, RunsNow)
    assert now.total.asked_pages == 64
    assert now.total.on_target_pages > 0
    assert now.total.elsewhere_pages == 0


def test_observing_asks_where_pages_are(tmp_path: Path) -> None:
    class Answering(FakeKernel):
        def verify(self, request: VerifyRequest) -> RunsNow | Skip:
            return verifier(world).verify(request)

    world = make_world(tmp_path, 10)
    now = ObserveKernel(Answering(FakeClock())).verify(request(run(0, 10, target=1)))
    assert isinstance(now, RunsNow)
    assert now.total == verified(10)
