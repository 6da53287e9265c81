"""Our own workloads: which memory is touched where, who uses it, and how; loads.c does it.

Owns the kinds of misplacement, and what the best static binding of each is. Must not know who repairs them.

Misplacement is made as schedulers make it: memory is first touched on a CPU of the wrong node, and the thread is on its
own CPU when the work begins. There is no mempolicy, which balancers rightly leave alone. All are pinned, and stay so.
"""

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from balancerd.kernel.machine.zones import read_free_blocks, read_high_watermarks
from balancerd.model.ids import NodeId
from balancerd.model.sample import PAGE_BYTES
from tests.bench.locality import loads
from tests.bench.locality.loads import Loads, Shape
from tests.bench.locality.plan import Mark, Plan, Running, Workload
from tests.bench.victim import Gaps

MIB = 1 << 20
NEAR, AWAY, NEIGHBOUR = 0, 2, 1
"""The node that uses memory, the one that has it (distance 21 in the lab), and the closest one (12)."""

PHASE_SECONDS = 15
SHARED_RATIO = 0.4
HELD_RATIO = 0.6
SPARE_BYTES = 32 * MIB
"""What a full node is left above its high watermark, for everybody else's small needs."""

HUGE_MIB = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A workload that is processes of loads.c, and nothing else."""

    name: str
    summary: str
    mib: int
    is_misplaced: bool = True
    stays_seconds: float | None = None
    units_per_second: int
    shape: Callable[[Plan], Shape]
    setting: Callable[[Plan], AbstractContextManager[None]] = lambda _: nullcontext()

    @contextmanager
    def start(self, plan: Plan) -> Iterator[Running]:
        with self.setting(plan), Loads(self.shape(plan), plan.work) as running:
            yield running


def one_process(plan: Plan, access: str = "scan", pages: str = "base") -> Shape:
    """One thread on the near node, with memory on the node away."""
    touch = plan.cpus[NEAR if plan.is_bound else AWAY]
    return Shape(processes=[f"{plan.cpus[NEAR]}={plan.mib}@{touch}"], access=access, pages=pages)


def crossed(plan: Plan) -> Shape:
    """A process on each node, with memory on the node across."""
    touches = {node: plan.cpus[node if plan.is_bound else node ^ AWAY] for node in plan.cpus}
    return Shape(processes=[f"{cpu}={plan.mib}@{touches[node]}" for node, cpu in plan.cpus.items()])


def private_parts(plan: Plan, mib: int) -> list[str]:
    """A thread on each node with a share of `mib`; the main thread touches all."""
    share = mib // len(plan.cpus)
    return [f"{cpu}={share}@{cpu if plan.is_bound else plan.cpus[NEAR]}" for cpu in plan.cpus.values()]


def parts(plan: Plan) -> Shape:
    return Shape(processes=["/".join(private_parts(plan, plan.mib))], access="list")


def shared(plan: Plan) -> Shape:
    """The same besides a part that all threads read; bound, its pages lie on all nodes by turns."""
    shared_mib = round(plan.mib * SHARED_RATIO)
    turns = ",".join(f"{cpu}:1" for cpu in plan.cpus.values())
    part = f"all={shared_mib}@{turns if plan.is_bound else plan.cpus[NEAR]}"
    return Shape(processes=["/".join([*private_parts(plan, plan.mib - shared_mib), part])])


def phases(units_per_second: int) -> Callable[[Plan], Shape]:
    return lambda plan: one_process(plan, access=f"phases:{PHASE_SECONDS * units_per_second}")


def storm(plan: Plan) -> Shape:
    """On each node one process after the other, each at home from the start."""
    return Shape(processes=[f"{cpu}={plan.mib}@{cpu}" for cpu in plan.cpus.values()], access="storm")


# moved about by a scheduler


@dataclass(slots=True)
class Shifted:
    """A load that somebody moves to another CPU now and then. Its memory stays where it is."""

    load: Loads
    route: Sequence[int]
    seconds: float
    n_shifts: int = 0

    @property
    def pids(self) -> tuple[int, ...]:
        return self.load.pids

    @property
    def gaps(self) -> Mapping[str, Gaps]:
        return self.load.gaps

    def work(self, mark: Mark) -> None:
        over = threading.Event()
        scheduler = threading.Thread(target=self._shift_until, args=(over,))
        scheduler.start()
        try:
            self.load.work(mark)
        finally:
            over.set()
            scheduler.join()

    def finish(self) -> str:
        return f"{self.load.finish()}, shifted {self.n_shifts} times"

    def shift(self) -> None:
        """Move it to the next CPU of the route; the first is where it began."""
        self.n_shifts += 1
        self.load.run_on(self.route[self.n_shifts % len(self.route)])

    def _shift_until(self, over: threading.Event) -> None:
        while not over.wait(self.seconds):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has died, which its output will tell
                self.shift()


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftedLoad:
    """One process that a scheduler moves from node to node every so many seconds; bound, it may stay."""

    name: str
    summary: str
    mib: int
    is_misplaced: bool = True
    units_per_second: int
    stays_seconds: float

    @contextmanager
    def start(self, plan: Plan) -> Iterator[Running]:
        with Loads(one_process(plan), plan.work) as load:
            yield load if plan.is_bound else Shifted(load=load, route=route(plan.cpus), seconds=self.stays_seconds)


def route(cpus: Mapping[int, int]) -> list[int]:
    """Return the CPUs of all nodes, in an order in which hardly any node is close to the one before: 0, 2, 1, 3."""
    nodes = sorted(cpus)
    half = (len(nodes) + 1) // 2
    turns = itertools.zip_longest(nodes[:half], nodes[half:])
    return [cpus[node] for pair in turns for node in pair if node is not None]


# an overcommitted node


@dataclass(slots=True)
class Crowded:
    """A load and an idle process beside it, whose memory must outlast it too."""

    load: Loads
    idle: Loads

    @property
    def pids(self) -> tuple[int, ...]:
        return (*self.load.pids, *self.idle.pids)

    @property
    def gaps(self) -> Mapping[str, Gaps]:
        return self.load.gaps

    def work(self, mark: Mark) -> None:
        self.load.work(mark)

    def finish(self) -> str:
        return f"{self.load.finish()}, idle: {self.idle.finish()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CrowdedLoad:
    """One process whose memory its node cannot take as a whole, since an idle one holds `held_ratio` of that node."""

    name: str
    summary: str
    mib: int
    is_misplaced: bool = True
    stays_seconds: float | None = None
    units_per_second: int
    held_ratio: float = HELD_RATIO

    @contextmanager
    def start(self, plan: Plan) -> Iterator[Running]:
        near = NodeId(NEAR)
        cpu = plan.cpus[NEAR]
        held_mib = max(1, int(free_bytes(near) * self.held_ratio) // MIB)
        with ExitStack() as stack:
            idle = stack.enter_context(Loads(Shape(processes=[f"{cpu}={held_mib}@{cpu}"]), work=1))
            touch = str(plan.cpus[AWAY])
            if plan.is_bound:
                room_bytes = free_bytes(near) - read_high_watermarks(Path("/proc"))[near] - SPARE_BYTES
                touch = filled_up(plan, room_bytes)
            load = stack.enter_context(Loads(Shape(processes=[f"{cpu}={plan.mib}@{touch}"]), plan.work))
            yield Crowded(load=load, idle=idle)


def free_bytes(node: NodeId) -> int:
    """Return the free memory of a node, page lists of its CPUs not counted."""
    blocks = (read_free_blocks("/proc") or {})[node]
    return sum(n << order for order, n in enumerate(blocks)) * PAGE_BYTES


def filled_up(plan: Plan, room_bytes: int) -> str:
    """Return where to touch memory: on the near node as long as there is room, the rest on the next one."""
    pages = plan.mib * MIB // PAGE_BYTES
    near = max(0, min(pages, room_bytes // PAGE_BYTES))
    places = ((plan.cpus[NEAR], near), (plan.cpus[NEIGHBOUR], pages - near))
    return ",".join(f"{cpu}:{n}" for cpu, n in places if n)


# huge pages


@contextmanager
def huge_pools(plan: Plan) -> Iterator[None]:
    """Reserve as many huge pages as the load needs where it has them first, and as many where they belong."""
    pools = [
        Path(f"/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/nr_hugepages") for node in (NEAR, AWAY)
    ]
    before = [pool.read_text(encoding="ascii") for pool in pools]
    wanted = -(-plan.mib // HUGE_MIB)
    try:
        for pool in pools:
            pool.write_text(str(wanted), encoding="ascii")
            if (got := int(pool.read_text(encoding="ascii"))) < wanted:
                raise RuntimeError(f"{pool} takes {got} huge pages instead of {wanted}")
        yield
    finally:
        for pool, text in zip(pools, before, strict=True):
            pool.write_text(text, encoding="ascii")


LEAST_MIB = 336
"""numad(8) looks at no process below 300 MB: "significance threshold". What it shall have its chance at takes more."""

ONE_CPU_UNITS_PER_SECOND = 6000
ALL_CPUS_UNITS_PER_SECOND = 8000
LISTS_UNITS_PER_SECOND = 6000
STORM_UNITS_PER_SECOND = 14
"""As measured under the oracle, on two host CPUs that others used, too."""

_LOADS = (
    Load(
        name="single",
        summary="one process on node 0, its memory on node 2",
        mib=400,
        units_per_second=ONE_CPU_UNITS_PER_SECOND,
        shape=one_process,
    ),
    Load(
        name="crossed",
        summary="a process on each node, its memory on the node across",
        mib=320,
        units_per_second=ALL_CPUS_UNITS_PER_SECOND,
        shape=crossed,
    ),
    Load(
        name="parts",
        summary="a process with a thread on each node, linked lists of each first touched by the main thread",
        mib=LEAST_MIB,
        units_per_second=LISTS_UNITS_PER_SECOND,
        shape=parts,
    ),
    Load(
        name="shared",
        summary="the same with scans, and with a part besides that all threads read",
        mib=320,
        units_per_second=ALL_CPUS_UNITS_PER_SECOND,
        shape=shared,
    ),
    Load(
        name="phases",
        summary="one process on node 0, its memory on node 2, of which it uses a quarter at a time",
        mib=LEAST_MIB,
        units_per_second=ONE_CPU_UNITS_PER_SECOND,
        shape=phases(ONE_CPU_UNITS_PER_SECOND),
    ),
    Load(
        name="storm",
        summary="short-lived processes, each at home: nothing to win",
        mib=8,
        is_misplaced=False,
        units_per_second=STORM_UNITS_PER_SECOND,
        shape=storm,
    ),
    Load(
        name="hugetlb",
        summary="one process on node 0, its huge pages (hugetlb) on node 2",
        mib=200,
        units_per_second=ONE_CPU_UNITS_PER_SECOND,
        shape=lambda plan: one_process(plan, pages="hugetlb"),
        setting=huge_pools,
    ),
)

_SHIFTED = tuple(
    ShiftedLoad(
        name=f"shifted-{seconds}",
        summary=f"one process that is moved to another node every {seconds} s",
        mib=LEAST_MIB,
        units_per_second=ONE_CPU_UNITS_PER_SECOND,
        stays_seconds=seconds,
    )
    for seconds in (5, 60, 300)
)

_CROWDED = CrowdedLoad(
    name="crowded",
    summary="one process on node 0, its memory on node 2; node 0 cannot take all of it",
    mib=600,
    units_per_second=ONE_CPU_UNITS_PER_SECOND,
)

_ALL: tuple[Workload, ...] = (*_LOADS, *_SHIFTED, _CROWDED)
WORKLOADS: Mapping[str, Workload] = {workload.name: workload for workload in _ALL}

build = loads.build
