"""When a promise of space ends."""

from dataclasses import replace

import pytest

from balancerd.engine.advice import Demand, Share
from balancerd.engine.leases import Lease, still_open
from balancerd.model.ids import NodeId
from balancerd.model.sample import ProcessSample
from tests.unit.reports import GIB, a_process

ASKED = Demand(cpus=2.0, memory_bytes=4 * GIB)


def a_lease(number: int = 1, demand: Demand = ASKED, *, node: int = 1, begun_at: float = 100.0) -> Lease:
    share = Share(node=NodeId(node), cpus=demand.cpus, memory_bytes=demand.memory_bytes)
    return Lease(id=number, demand=demand, shares=(share,), begun_at=begun_at, ends_at=begun_at + 60.0)


def newcomer(pid: int = 1, *, node: int = 1, gib: float = 4.0, age: float = 5.0, cores: float = 2.0) -> ProcessSample:
    process = a_process(pid, rss_bytes=int(gib * GIB), age_seconds=age, cpu_cores=cores)
    return replace(process, run_seconds={NodeId(node): 1.9, NodeId(0): 0.1})


@pytest.mark.parametrize(
    ("why", "process", "now", "is_open"),
    [
        ("nobody came", None, 110.0, True),
        ("its time is over", None, 160.0, False),
        ("he is there", newcomer(), 110.0, False),
        ("half of it counts", newcomer(gib=2.0), 110.0, False),
        ("less does not", newcomer(gib=1.9), 110.0, True),
        ("older than the lease", newcomer(age=11.0), 110.0, True),
        ("runs elsewhere", newcomer(node=0), 110.0, True),
        ("bound elsewhere counts less than where he runs", replace(newcomer(), mems_allowed=None), 110.0, False),
        ("bound there", replace(newcomer(node=0), mems_allowed=frozenset({NodeId(1)})), 110.0, False),
        ("not seen running", replace(newcomer(), run_seconds=None), 110.0, True),
        ("a kernel thread", replace(newcomer(), kernel_thread=True), 110.0, True),
    ],
)
def test_a_lease_holds_until(why: str, process: ProcessSample | None, now: float, is_open: bool) -> None:
    lease = a_lease()
    assert still_open((lease,), () if process is None else (process,), now) == ((lease,) if is_open else ()), why


def test_one_process_takes_up_one_lease_the_oldest_first() -> None:
    leases = (a_lease(2), a_lease(1), a_lease(3, begun_at=107.0))
    assert [lease.id for lease in still_open(leases, (newcomer(1),), 110.0)] == [2, 3]
    assert [lease.id for lease in still_open(leases, (newcomer(1), newcomer(2, age=2.0)), 110.0)] == [3]
    assert [lease.id for lease in still_open(leases, (newcomer(1), newcomer(2), newcomer(3)), 110.0)] == [3]


def test_who_asked_for_cpus_alone_is_there_when_he_uses_them() -> None:
    lease = a_lease(demand=Demand(cpus=4.0, memory_bytes=0))
    assert still_open((lease,), (newcomer(gib=0.1, cores=1.0),), 110.0) == (lease,)
    assert still_open((lease,), (newcomer(gib=0.1, cores=2.0),), 110.0) == ()
