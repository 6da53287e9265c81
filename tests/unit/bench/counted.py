"""Counters as the oracle would have counted them, from a few numbers; and boots as they are kept."""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.bench.locality.figures import Figures, Point
from tests.bench.locality.record import Boot, parse_result
from tests.lab.oracle.counters import Counters, Counts, Header, Kind, Reading

HEADER = Header(
    node_of_cpu=(0, 1, 2, 3, 3),
    distances=((10, 12, 21, 31), (12, 10, 31, 21), (21, 31, 10, 12), (31, 21, 12, 10)),
    l1_kib=32,
    llc_kib=1024,
)
USER, KERNEL = False, True
By = Mapping[tuple[int, bool], tuple[int, Sequence[int], Sequence[int]]]
"""By CPU and class: loads and stores, lines read from each node, lines written to each."""


def reading(kind: Kind, number: int, at_seconds: float, by: By) -> Reading:
    """A reading in which who is not named has done nothing."""
    everyone = [(cpu, is_kernel) for cpu in range(5) for is_kernel in (USER, KERNEL)]
    counts = {}
    for source in everyone:
        accesses, reads, writes = by.get(source, (0, (0, 0, 0, 0), (0, 0, 0, 0)))
        counts[source] = Counts(
            accesses=accesses, lookups=0, io=0, unknown=0, reads_by_node=tuple(reads), writes_by_node=tuple(writes)
        )
    return Reading(kind=kind, number=number, at_seconds=at_seconds, counts=counts)


def counters(*readings: Reading) -> Counters:
    """All readings of a machine of machine.toml."""
    return Counters(header=HEADER, readings=readings, is_cut=False)


def points(*pairs: tuple[float, float], accesses: int = 100) -> tuple[Point, ...]:
    """Stretches of as many accesses each, by their end and by what an access costs."""
    return tuple(Point(seconds=at, accesses=accesses, remote=0, cost=cost * accesses) for at, cost in pairs)


def figures(**changes: Any) -> Figures:
    """Figures of a boot of a hundred accesses, all local, unless something else is said."""
    usual: dict[str, Any] = {
        "seconds": 120.0,
        "accesses": 100,
        "workload_cost": 100.0,
        "own_cost": 0.0,
        "kernel_cost": 0.0,
        "remote_ratio": 0.0,
        "last_quarter_remote_ratio": 0.0,
        "balance_ratio": 1.0,
    }
    return Figures(**{**usual, **changes})


def boot(rival: str, number: int = 1, *, result: Mapping[str, Any] | None = None, **changes: Any) -> Boot:
    """A boot of "single" with figures(); `changes` may be fields of Boot, or of Figures."""
    own = {name: changes.pop(name) for name in list(changes) if name not in Figures.__dataclass_fields__}
    told = {
        "kernel": "6.12.1",
        "gaps": {},
        "pages": {"moved_bytes": 0, "moved_once_bytes": 0, "moved_twice_bytes": 0},
        "daemon": None,
        **(result or {}),
    }
    usual: dict[str, Any] = {
        "workload": "single",
        "summary": "one thread",
        "is_misplaced": True,
        "rival": rival,
        "boot": number,
        "work": 1000,
        "mib": 400,
        "asked_seconds": 120,
        "attempts": 1,
        "commit": "0123456789ab",
        "host_cpus": 2,
        "versions": {"QEMU": "7.2.22"},
        "figures": figures(**changes),
        "series": (),
        "result": parse_result(told),
    }
    return Boot(**{**usual, **own})
