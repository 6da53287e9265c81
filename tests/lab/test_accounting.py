"""Whatever happens to a process while its memory moves, every page submitted ends in one status, and no word is lost.

Inside the guest. A `shifter` disturbs its own memory, or `shifter write` the machine, and the daemon's mover drives
that memory from node to node the while. What counts is what happens within moving calls: see Disturbances.
"""

import errno
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest

from balancerd.kernel.errors import ProcessGoneError
from balancerd.model.decision import Reason
from balancerd.model.ids import NodeId
from balancerd.model.migration import MigrationOutcome
from balancerd.model.page_status import PageStatus
from balancerd.native import Migration, RangeArray, placement
from tests.lab.balancing import eager_balancing
from tests.lab.live import PAGE, WatchedCore, carry_out, live_kernel, step_of
from tests.lab.native_targets import full
from tests.lab.workloads import vmstat
from tests.lab.workloads.shifter import MIB, Shifter, Writer

NODES = tuple(map(NodeId, range(4)))
CPU = 2
SEED = 20261121
FEWEST_STEPS = 12
PATIENCE_SECONDS = 60.0  # most have enough after 12; a loaded host is given time
SYSTEM = Path("/sys/devices/system")
POOL = SYSTEM / "node/node3/hugepages/hugepages-2048kB/nr_hugepages"

Acts = Callable[[], tuple[int, int]]
"""How many disturbances of one kind have begun, and how many are done."""


class Disturbances:
    """Counts, by kind, the disturbances that were under way at some time of a moving call."""

    def __init__(self, probes: dict[str, Acts]) -> None:
        self.during: Counter[str] = Counter()
        self.core = WatchedCore(before=self._before, after=self._after)
        self._probes = probes
        self._done_before: dict[str, int] = {}

    def _before(self) -> None:
        self._done_before = {name: probe()[1] for name, probe in self._probes.items()}

    def _after(self, _done: Migration) -> None:
        for name, probe in self._probes.items():
            self.during[name] += probe()[0] - self._done_before[name]


@dataclass(slots=True)
class Journey:
    """What all steps of a test came to."""

    during: Counter[str]
    steps: int = 0
    submitted_pages: int = 0
    pages: Counter[PageStatus] = field(default_factory=Counter)
    passed_over: Counter[PageStatus] = field(default_factory=Counter)
    retried_pages: int = 0
    cut_short: int = 0
    """Steps that had moved something when the target had no more memory."""
    stopped_by: Counter[Reason | None] = field(default_factory=Counter)
    migrated_by_vmstat: int = 0

    def add(self, outcome: MigrationOutcome) -> None:
        self.steps += 1
        self.submitted_pages += outcome.submitted_pages
        self.pages.update(outcome.pages)
        self.passed_over.update(outcome.passed_over)
        self.retried_pages += outcome.retried_pages
        self.stopped_by[outcome.stopped_by] += 1
        self.cut_short += outcome.stopped_by is Reason.NO_MEMORY and outcome.moved_pages > 0


def transient_pages(done: Migration) -> int:
    """Pages that failed for what may be a moment: what becomes of them later, a run need not tell."""
    errors = {errno.EBUSY, errno.ENOMEM, errno.EIO}
    return sum(pages for number, pages in done.by_errno if number in errors) + done.unwritten_pages


def travel(
    shifter: Shifter, probes: dict[str, Acts], enough: Callable[[Journey], bool], *, nodes: tuple[NodeId, ...] = NODES
) -> Journey:
    """Move the whole memory from node to node until enough has happened, or patience is at its end."""
    disturbances = Disturbances({"act": shifter.acts, **probes})
    journey = Journey(disturbances.during)
    live = live_kernel(disturbances.core)
    choose = random.Random(SEED)  # noqa: S311 the same journey in every run
    target, resume_at = nodes[0], shifter.start
    deadline = time.monotonic() + PATIENCE_SECONDS
    before = vmstat("pgmigrate_success")
    while (journey.steps < FEWEST_STEPS or not enough(journey)) and time.monotonic() < deadline:
        try:
            process = shifter.process_id()
        except ProcessGoneError:
            continue
        span, n_moves = (shifter.start, shifter.end), len(disturbances.core.moves)
        outcome = carry_out(live, step_of(process, [span], target, resume_at=resume_at))
        failed_at_first = sum(map(transient_pages, disturbances.core.moves[n_moves:]))
        assert outcome.unrecorded_pages <= failed_at_first, f"fates are untold of pages that were tried once: {outcome}"
        journey.add(outcome)
        resume_at = outcome.resume_at or shifter.start
        if outcome.resume_at is None or outcome.stopped_by is not None:
            target, resume_at = choose.choice([node for node in nodes if node != target]), shifter.start
    journey.migrated_by_vmstat = vmstat("pgmigrate_success") - before
    print(f"{journey.steps} steps; {journey.submitted_pages} submitted, {journey.retried_pages} of them again")
    print(f"{journey.migrated_by_vmstat} migrated, says vmstat")
    for counts in (journey.pages, journey.passed_over, journey.stopped_by, journey.during):
        print({str(key): n for key, n in counts.items()})
    # A page that the kernel left open, and that a write then copied, or a fault brought back, counts as moved, too.
    assert journey.pages[PageStatus.MOVED] <= 1.05 * journey.migrated_by_vmstat
    return journey


def nodes_by_numa_maps(pid: int, shifter: Shifter) -> tuple[int, ...]:
    pages = Counter[int]()
    for line in Path(f"/proc/{pid}/numa_maps").read_text(encoding="ascii").splitlines():
        if shifter.start <= int(line.split()[0], 16) < shifter.end:
            pages.update({int(node): int(n) for node, n in re.findall(r" N(\d+)=(\d+)", line)})
    return tuple(pages[node] for node in NODES)


def assert_memory_is_whole(shifter: Shifter) -> None:
    """With nobody disturbing anything any more, the kernel's two accounts agree, and so does every word."""
    shifter.rest()
    pid = shifter.counters["pid"]
    ranges = RangeArray([(shifter.start, shifter.end, PAGE)])
    deadline = time.monotonic() + 3.0  # a cpuset's change moves memory for a while after
    while True:
        told, asked = nodes_by_numa_maps(pid, shifter), placement(pid, ranges, n_nodes=len(NODES)).on_node
        if told == asked or time.monotonic() > deadline:
            break
    assert asked == told
    assert sum(told) >= (shifter.end - shifter.start) // PAGE // 2
    assert shifter.finish() == f"verified {sum(told)} pages, status 0, 0 pages were wrong"


@contextmanager
def shifter_that(act: str, folder: Path, *, mib: int = 16) -> Iterator[Shifter]:
    with Shifter(act, mib, folder, cpu=CPU, seed=SEED) as shifter:
        yield shifter


def test_mappings_that_come_and_go(tmp_path: Path) -> None:
    with shifter_that("munmap", tmp_path) as shifter:
        journey = travel(shifter, {}, lambda j: j.during["act"] > 100)
        assert journey.during["act"] > 100
        assert journey.pages[PageStatus.MOVED] > 16 * MIB // PAGE
        assert journey.passed_over.total() > 0
        assert_memory_is_whole(shifter)


def test_mappings_that_grow_shrink_and_change_places(tmp_path: Path) -> None:
    with shifter_that("mremap", tmp_path) as shifter:
        journey = travel(shifter, {}, lambda j: j.during["act"] > 100)
        assert journey.during["act"] > 100
        assert journey.pages[PageStatus.MOVED] > 16 * MIB // PAGE
        assert_memory_is_whole(shifter)


def test_children_that_are_forked_and_write(tmp_path: Path) -> None:
    with shifter_that("fork", tmp_path) as shifter:
        journey = travel(shifter, {}, lambda j: j.during["act"] > 20 and j.pages[PageStatus.MOVED] > 4096)
        assert journey.during["act"] > 20
        assert journey.pages[PageStatus.MOVED] > 4096
        assert journey.pages[PageStatus.SHARED] > 0
        assert_memory_is_whole(shifter)


def test_a_process_that_becomes_another_program(tmp_path: Path) -> None:
    with shifter_that("exec", tmp_path, mib=4) as shifter:
        journey = travel(shifter, {}, lambda j: j.during["act"] > 20)
        assert journey.during["act"] > 20
        assert journey.pages[PageStatus.MOVED] > 1024
        assert_memory_is_whole(shifter)


def test_processes_that_exit_in_the_middle(tmp_path: Path) -> None:
    with shifter_that("exit", tmp_path, mib=8) as shifter:
        journey = travel(shifter, {}, lambda j: j.stopped_by[Reason.EXITED] > 5 and j.during["act"] > 2)
        assert journey.during["act"] > 2
        assert journey.stopped_by[Reason.EXITED] > 5
        assert journey.pages[PageStatus.MOVED] > 1024
        assert_memory_is_whole(shifter)


class Filler(threading.Thread):
    """Takes what is free on the node into the pool of huge pages, and gives some of them back, by turns."""

    def __init__(self, given_back: int) -> None:
        super().__init__()
        self.given_back = given_back
        self.begun = self.done = 0
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.15):
            self.begun += 1
            POOL.write_text("600", encoding="ascii")  # as many as there are
            self.done += 1
            self.ended.wait(0.15)
            # fewer than it has now: others take and leave memory meanwhile
            POOL.write_text(str(int(POOL.read_text(encoding="ascii")) - self.given_back), encoding="ascii")

    def acts(self) -> tuple[int, int]:
        return self.begun, self.done

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.join()


def test_a_target_node_that_is_filled_up(tmp_path: Path) -> None:
    with shifter_that("touch", tmp_path, mib=32) as shifter:
        with full(NODES[3]), Filler(given_back=12) as filler:  # never room for the whole shifter
            journey = travel(
                shifter,
                {"fill": filler.acts},
                lambda j: j.cut_short > 1 and j.during["fill"] > 10,
                nodes=(NODES[3], NODES[0]),
            )
            assert filler.is_alive(), "it failed"
        assert journey.during["fill"] > 10
        assert journey.cut_short > 1
        assert journey.pages[PageStatus.MOVED] > 4096
        assert_memory_is_whole(shifter)


def test_a_cpuset_that_changes_in_the_middle(tmp_path: Path) -> None:
    group = Path("/sys/fs/cgroup/accounting-test")
    with ExitStack() as stack:
        group.mkdir()
        stack.callback(group.rmdir)
        shifter = stack.enter_context(shifter_that("touch", tmp_path))
        (group / "cpuset.mems").write_text("0-3", encoding="ascii")
        (group / "cgroup.procs").write_text(str(shifter.process_id().pid), encoding="ascii")
        with Writer(tmp_path, ("1,3", "0-3"), [group / "cpuset.mems"], nap_ms=150) as changer:
            journey = travel(
                shifter,
                {"change": changer.acts},
                lambda j: (
                    j.stopped_by[Reason.OUTSIDE_CPUSET] > 2
                    and j.during["change"] > 5
                    and j.pages[PageStatus.MOVED]
                    > 4096  # for some seconds the kernel may have all of them in its hands
                ),
            )
            assert changer.finish() > 0
        assert journey.during["change"] > 5
        assert journey.stopped_by[Reason.OUTSIDE_CPUSET] > 2
        assert journey.pages[PageStatus.MOVED] > 4096
        assert_memory_is_whole(shifter)


@pytest.fixture
def blocks() -> Iterator[list[Path]]:
    """Two blocks that can go offline, and in which all free memory of node 3 is: the others are full or offline."""
    states = [block / "state" for block in (SYSTEM / "node/node3").glob("memory[0-9]*")]
    assert {state.read_text(encoding="ascii") for state in states} == {"online\n"}
    able = []
    try:
        for state in states:
            with suppress(OSError):  # it holds memory of the kernel's own
                state.write_text("offline", encoding="ascii")
                able.append(state)
        assert len(able) >= 2
        POOL.write_text("600", encoding="ascii")  # as many as there are
        for state in able[:2]:
            state.write_text("online", encoding="ascii")
        yield able[:2]
    finally:
        POOL.write_text("0", encoding="ascii")
        for state in states:
            if state.read_text(encoding="ascii") != "online\n":
                state.write_text("online", encoding="ascii")


def test_memory_blocks_that_go_offline_in_the_middle(tmp_path: Path, blocks: list[Path]) -> None:
    with shifter_that("touch", tmp_path) as shifter:
        with Writer(tmp_path, ("offline", "online"), blocks, nap_ms=20) as remover:
            journey = travel(
                shifter,
                {"offline": remover.acts, "succeeded": lambda: (remover.counters["succeeded"],) * 2},
                lambda j: j.during["offline"] > 10 and j.during["succeeded"] > 2,
                nodes=(NODES[3], NODES[2]),
            )
            assert remover.finish() > 2
        assert journey.during["offline"] > 10
        assert journey.during["succeeded"] > 2
        assert journey.pages[PageStatus.MOVED] > 4096
        assert journey.migrated_by_vmstat > journey.pages[PageStatus.MOVED], "no block had memory to get rid of"
        assert_memory_is_whole(shifter)


@pytest.fixture
def kernel_balancing() -> Iterator[None]:
    """The kernel's own balancing, as eager as it can be."""
    with eager_balancing(delay_ms=1, least_ms=20, most_ms=40):
        yield


@pytest.mark.usefixtures("kernel_balancing")
def test_the_kernel_balancing_at_the_same_time(tmp_path: Path) -> None:
    probes: dict[str, Acts] = {
        name: lambda name=name: (vmstat(name),) * 2  # type: ignore[misc]
        for name in ("numa_hint_faults", "numa_pages_migrated")
    }
    with shifter_that("touch", tmp_path) as shifter:
        journey = travel(
            shifter,
            probes,  # where the host is slow, a call may outlast patience while the kernel fetches pages back
            lambda j: min(j.during[name] for name in probes) > 20 and j.pages[PageStatus.MOVED] > 4096,
        )
        assert journey.during["numa_hint_faults"] > 20
        assert journey.during["numa_pages_migrated"] > 20
        assert journey.pages[PageStatus.MOVED] > 4096
        Path("/proc/sys/kernel/numa_balancing").write_text("0", encoding="ascii")
        assert_memory_is_whole(shifter)
