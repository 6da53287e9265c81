"""Real programs from Debian as workloads: Redis, PostgreSQL, numpy.

Owns which there are. Must not know how they are run, nor from where.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.locality import debian, matrix, postgres, redis
from tests.bench.locality.plan import Plan, Running, Workload
from tests.bench.locality.workloads import LEAST_MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program behind the protocol of all workloads."""

    name: str
    summary: str
    mib: int
    units_per_second: int
    run: Callable[[Plan], AbstractContextManager[Running]]
    is_misplaced: bool = True
    stays_seconds: float | None = None

    def start(self, plan: Plan) -> AbstractContextManager[Running]:
        """Start it; when the block is entered, it is ready to work."""
        return self.run(plan)


ALL = (
    Program(
        name="redis",
        summary="redis-server on CPU 0, its keys stored from node 2; GET and SET of 1000 bytes by redis-benchmark",
        mib=LEAST_MIB,
        units_per_second=10_000,
        run=redis.start,
    ),
    Program(
        name="postgres",
        summary="PostgreSQL on CPU 0, its shared buffers filled on node 2; pgbench sums 1000 rows at a time",
        mib=96,
        units_per_second=150,
        run=postgres.start,
    ),
    Program(
        name="numpy",
        summary="numpy on CPU 0, one thread: products with a matrix that was made on node 2",
        mib=LEAST_MIB,
        units_per_second=300,
        run=matrix.start,
    ),
)
PROGRAMS: Mapping[str, Workload] = {program.name: program for program in ALL}


def ensure_programs(cache: Path) -> None:
    """Unpack the programs and the libraries they lack under `cache`; to be called outside, before a boot.

    Raises LabError when apt does not know them or cannot fetch them.
    """
    debian.ensure(cache)


def versions(cache: Path) -> Mapping[str, str]:
    """Return the version of each package that lies there."""
    return debian.versions(cache)
