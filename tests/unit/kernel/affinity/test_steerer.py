"""Threads are steered and let go: real threads where two CPUs are enough, and a tree in memory for what goes wrong."""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from balancerd.kernel.affinity.cpusets import parse_memberships, read_cpuset_cpus
from balancerd.kernel.affinity.journal import Journal
from balancerd.kernel.affinity.steerer import Steerer
from balancerd.kernel.clock import MonotonicClock
from balancerd.kernel.errors import ParseError
from balancerd.model.decision import Reason
from balancerd.model.ids import CpuId, NodeId, ProcessId
from balancerd.model.steering import SteerKind, SteerStep, ThreadFate
from tests.unit.fakes import FakeClock
from tests.unit.kernel.children import child
from tests.unit.kernel.trees import stat_line, write_tree

PID = ProcessId(100, 50)
ALL = {0, 1, 2, 3}


def step(process: ProcessId, kind: SteerKind, *cpus: int, own_affinity: bool = False) -> SteerStep:
    return SteerStep(
        policy="threads",
        process=process,
        target=NodeId(1),
        cpus=frozenset(map(CpuId, cpus)),
        kind=kind,
        own_affinity=own_affinity,
    )


@dataclass
class Calls:
    """The affinities of threads in memory. `errors` are raised by setting; who is `asleep` stays."""

    root: Path
    cpus: dict[int, set[int]] = field(default_factory=dict)
    errors: dict[int, int] = field(default_factory=dict)
    asleep: set[int] = field(default_factory=set)
    told: list[tuple[int, set[int]]] = field(default_factory=list)

    def sched_getaffinity(self, pid: int) -> set[int]:
        if pid not in self.cpus:
            raise ProcessLookupError(errno.ESRCH, "No such process")
        return set(self.cpus[pid])

    def sched_setaffinity(self, pid: int, mask: Iterable[int]) -> None:
        wanted = set(mask)
        if pid in self.errors:
            raise OSError(self.errors[pid], os.strerror(self.errors[pid]))
        self.told.append((pid, wanted))
        self.cpus[pid] = wanted & ALL
        if pid not in self.asleep and self.cpu_of(pid) not in wanted:
            self.put(pid, min(wanted))

    def stat(self, tid: int) -> str:
        return (self.root / f"proc/100/task/{tid}/stat").read_text(encoding="ascii")

    def cpu_of(self, tid: int) -> int:
        return int(self.stat(tid).rpartition(")")[2].split()[36])

    def put(self, tid: int, cpu: int, start_ticks: int = 60) -> None:
        text = stat_line(tid, "worker", start_ticks=start_ticks, cpu=cpu)
        write_tree(self.root, {f"proc/100/task/{tid}/stat": text})

    def add(self, tid: int, *, cpu: int = 0, cpus: Iterable[int] = ALL, start_ticks: int = 60) -> None:
        self.put(tid, cpu, start_ticks)
        self.cpus[tid] = set(cpus)


class World:
    """A tree with one process, calls in memory, and a steerer with its journal."""

    def __init__(self, root: Path) -> None:
        own = os.getpid()
        write_tree(
            root,
            {
                "proc/100/stat": stat_line(100, "worker", start_ticks=50),
                "proc/100/cgroup": "0::/a/b\n",
                "proc/self/mountinfo": f"30 20 0:26 / {root}/cgroup rw - cgroup2 cgroup2 rw\n",
                f"proc/{own}/stat": stat_line(own, "python", start_ticks=7),
                "proc/sys/kernel/random/boot_id": "one\n",
                "sys/devices/system/cpu/possible": "0-7\n",
                "sys/devices/system/cpu/online": "0-3\n",
                "cgroup/a/cpuset.cpus.effective": "0-3\n",
                "cgroup/cpuset.cpus.effective": "0-3\n",
            },
        )
        (root / "cgroup/a/b").mkdir()
        (root / "state").mkdir()
        self.root = root
        self.calls = Calls(root)
        self.told: list[str] = []
        self.clock = FakeClock()
        self.journal = Journal(root / "state", str(root / "proc"))
        self.steerer = self.start()

    def start(self) -> Steerer:
        """A daemon that starts: one before it may have crashed."""
        steerer = Steerer(
            self.clock,
            self.journal,
            self.told.append,
            procfs=str(self.root / "proc"),
            sysfs=str(self.root / "sys"),
            calls=self.calls,
        )
        steerer.recover()
        return steerer

    def cpuset(self, cpus: str) -> None:
        write_tree(self.root, {"cgroup/a/cpuset.cpus.effective": f"{cpus}\n"})


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_kicked_thread_is_moved_and_has_its_affinity_back(world: World) -> None:
    world.calls.add(100)
    world.calls.add(101, cpu=1)
    outcome = world.steerer.steer(step(PID, SteerKind.KICK, 1))
    assert outcome.threads == {ThreadFate.MOVED: 1, ThreadFate.THERE: 1}
    assert (outcome.held_threads, outcome.stopped_by) == (0, None)
    assert world.calls.told == [(100, {1}), (100, set(range(8)))], "all CPUs there can be: the cpuset may widen"
    assert world.calls.cpu_of(100) == 1
    assert world.journal.read() == ()


def test_a_thread_that_sleeps_keeps_the_affinity_until_it_is_released(world: World) -> None:
    world.calls.add(100)
    world.calls.asleep.add(100)
    outcome = world.steerer.steer(step(PID, SteerKind.KICK, 1))
    assert outcome.threads == {ThreadFate.UNSEEN: 1}
    assert outcome.held_threads == 1
    assert world.calls.cpus[100] == {1}
    assert [entry.tid for entry in world.journal.read()] == [100]
    assert 0.019 < world.clock.now() - 1000.0 < 0.03
    released = world.steerer.steer(step(PID, SteerKind.RELEASE))
    assert released.threads == {ThreadFate.RESTORED: 1}
    assert released.held_threads == 0
    assert world.calls.cpus[100] == ALL
    assert world.journal.read() == ()


def test_pinned_threads_stay_pinned_and_what_they_made_is_freed_with_them(world: World) -> None:
    world.calls.add(100)
    world.calls.add(101)
    pin = step(PID, SteerKind.PIN, 1)
    assert world.steerer.steer(pin).threads == {ThreadFate.PINNED: 2}
    assert world.calls.cpus == {100: {1}, 101: {1}}
    assert {entry.tid for entry in world.journal.read()} == {100, 101}
    assert world.steerer.steer(pin).threads == {ThreadFate.PINNED: 2}, "asked again it changes nothing"
    assert len(world.calls.told) == 2
    world.calls.add(102, cpu=1, cpus={1}, start_ticks=1 << 40)  # inherited
    world.calls.add(103, cpu=1, cpus={1}, start_ticks=60)  # somebody's choice, from before
    world.calls.add(104, cpu=2, cpus={2}, start_ticks=1 << 40)  # somebody's choice, since
    assert world.steerer.steer(step(PID, SteerKind.RELEASE)).threads == {ThreadFate.RESTORED: 3}
    assert world.calls.cpus == {100: ALL, 101: ALL, 102: ALL, 103: {1}, 104: {2}}


def test_a_thread_made_by_a_kicked_one_is_freed_too(world: World) -> None:
    world.calls.add(100)
    world.calls.asleep.add(100)
    put = world.clock.wait_until

    def wait(deadline: float) -> None:
        put(deadline)
        if 105 not in world.calls.cpus:
            world.calls.add(105, cpu=1, cpus={1}, start_ticks=1 << 40)
            world.calls.put(100, 1)

    world.clock.wait_until = wait  # type: ignore[method-assign]
    outcome = world.steerer.steer(step(PID, SteerKind.KICK, 1))
    assert outcome.threads == {ThreadFate.MOVED: 1, ThreadFate.RESTORED: 1}
    assert world.calls.cpus[105] == ALL


@pytest.mark.parametrize(
    ("cpus", "own", "fates", "reason", "after"),
    [
        ({0, 1}, False, {ThreadFate.OWN_AFFINITY: 1}, Reason.OWN_AFFINITY, {0, 1}),
        ({0, 1}, True, {ThreadFate.MOVED: 1}, None, {0, 1}),
        ({0, 2}, True, {ThreadFate.OUTSIDE: 1}, Reason.OUTSIDE_AFFINITY, {0, 2}),
        ({1}, True, {ThreadFate.THERE: 1}, None, {1}),
    ],
)
def test_an_affinity_of_its_own_is_respected(
    world: World, cpus: set[int], own: bool, fates: dict[ThreadFate, int], reason: Reason | None, after: set[int]
) -> None:
    world.calls.add(100, cpus=cpus)
    outcome = world.steerer.steer(step(PID, SteerKind.KICK, 1, own_affinity=own))
    assert outcome.threads == fates
    assert outcome.stopped_by is reason
    assert world.calls.cpus[100] == after, "given back as it was, not all CPUs"


def test_who_may_run_on_all_of_its_cpuset_has_no_affinity_of_its_own(world: World) -> None:
    world.cpuset("0-1")
    world.calls.add(100, cpus={0, 1})
    assert world.steerer.steer(step(PID, SteerKind.KICK, 1)).threads == {ThreadFate.MOVED: 1}
    world.cpuset("0")
    world.calls.add(100, cpus={0})
    assert world.steerer.steer(step(PID, SteerKind.KICK, 1)).stopped_by is Reason.OUTSIDE_AFFINITY


@pytest.mark.parametrize(
    ("number", "fate"),
    [
        (errno.EPERM, ThreadFate.NOT_PERMITTED),
        (errno.EINVAL, ThreadFate.INVALID),
        (errno.ESRCH, ThreadFate.VANISHED),
        (errno.EIO, ThreadFate.FAILED),
    ],
)
def test_a_call_that_fails_is_a_fate_and_stops_no_other_thread(world: World, number: int, fate: ThreadFate) -> None:
    world.calls.add(100)
    world.calls.add(101)
    world.calls.errors[100] = number
    outcome = world.steerer.steer(step(PID, SteerKind.PIN, 1))
    assert outcome.threads == {fate: 1, ThreadFate.PINNED: 1}
    assert (outcome.held_threads, outcome.stopped_by) == (1, None)
    assert [entry.tid for entry in world.journal.read()] == [101]
    del world.calls.cpus[101]
    world.calls.errors.clear()
    (world.root / "proc/100/task/101/stat").unlink()
    assert world.steerer.steer(step(PID, SteerKind.RELEASE)).threads == {ThreadFate.VANISHED: 1}


def test_where_every_call_is_refused_the_outcome_says_so(world: World) -> None:
    world.calls.add(100)
    world.calls.errors[100] = errno.EPERM
    outcome = world.steerer.steer(step(PID, SteerKind.KICK, 1))
    assert (outcome.stopped_by, outcome.held_threads) == (Reason.AFFINITY_REFUSED, 0)
    assert world.journal.read() == ()


def test_a_process_that_is_gone_or_another_one_by_now_is_left_alone(world: World) -> None:
    world.calls.add(100)
    other = ProcessId(100, 51)
    assert world.steerer.steer(step(other, SteerKind.PIN, 1)).stopped_by is Reason.EXITED
    assert world.steerer.steer(step(PID, SteerKind.PIN, 1)).stopped_by is None
    write_tree(world.root, {"proc/100/stat": stat_line(100, "worker", start_ticks=99)})
    assert world.steerer.steer(step(PID, SteerKind.RELEASE)).stopped_by is Reason.EXITED
    assert world.calls.cpus[100] == {1}, "it is not the thread that was pinned"
    assert world.journal.read() == ()


def test_a_thread_with_the_number_of_one_that_was_pinned_is_left_alone(world: World) -> None:
    world.calls.add(100)
    world.calls.add(101)
    world.steerer.steer(step(PID, SteerKind.PIN, 1))
    world.calls.add(101, cpus={1}, start_ticks=61)
    outcome = world.steerer.steer(step(PID, SteerKind.RELEASE))
    assert outcome.threads == {ThreadFate.RESTORED: 1, ThreadFate.VANISHED: 1}
    assert world.calls.cpus == {100: ALL, 101: {1}}


def test_an_affinity_that_somebody_has_changed_since_is_left_alone(world: World) -> None:
    world.calls.add(100)
    world.calls.add(101)
    world.steerer.steer(step(PID, SteerKind.PIN, 1, 2))
    world.calls.cpus[100] = {3}
    outcome = world.steerer.steer(step(PID, SteerKind.RELEASE))
    assert outcome.threads == {ThreadFate.CHANGED: 1, ThreadFate.RESTORED: 1}
    assert world.calls.cpus == {100: {3}, 101: ALL}
    assert len(world.told) == 1
    assert "1 threads of process 100 have another affinity" in world.told[0]


def test_what_a_changed_cpuset_has_cut_off_is_not_somebody_elses_change(world: World) -> None:
    world.calls.add(100)
    world.steerer.steer(step(PID, SteerKind.PIN, 1, 2))
    world.cpuset("0-1")
    world.calls.cpus[100] = {1}
    assert world.steerer.steer(step(PID, SteerKind.RELEASE)).threads == {ThreadFate.RESTORED: 1}


def test_the_journal_is_written_before_anything_is_changed(world: World) -> None:
    world.calls.add(100)
    written: list[int] = []
    plain = world.calls.sched_setaffinity

    def call(pid: int, mask: Iterable[int]) -> None:
        written.append(len(world.journal.read()))
        plain(pid, mask)

    world.calls.sched_setaffinity = call  # type: ignore[method-assign]
    world.steerer.steer(step(PID, SteerKind.PIN, 1))
    assert written == [1]


def test_without_a_journal_nothing_is_changed(world: World) -> None:
    world.calls.add(100)
    (world.root / "state").rmdir()
    outcome = world.steerer.steer(step(PID, SteerKind.PIN, 1))
    assert outcome.stopped_by is Reason.NO_JOURNAL
    assert "No such file" in outcome.detail
    without = Steerer(world.clock, None, world.told.append, calls=world.calls)
    assert without.steer(step(PID, SteerKind.PIN, 1)).stopped_by is Reason.NO_JOURNAL
    assert world.calls.told == []


def test_after_a_crash_the_next_daemon_gives_affinities_back(world: World) -> None:
    world.calls.add(100)
    world.calls.add(101)
    world.steerer.steer(step(PID, SteerKind.PIN, 1))
    world.calls.cpus[101] = {2}
    world.start()
    assert world.calls.cpus == {100: ALL, 101: {2}}
    assert world.journal.read() == ()
    assert any("a daemon before has left 2 threads with an affinity: 1 changed, 1 restored" in t for t in world.told)


def test_at_the_end_everything_is_given_back(world: World) -> None:
    world.calls.add(100)
    world.steerer.steer(step(PID, SteerKind.PIN, 1))
    assert world.steerer.restore_all() == {ThreadFate.RESTORED: 1}
    assert world.calls.cpus[100] == ALL
    assert world.journal.read() == ()


def test_a_journal_that_cannot_be_understood_is_kept_aside_and_the_daemon_goes_on(world: World) -> None:
    world.journal.path.write_text("{", encoding="ascii")
    world.calls.add(100)
    steerer = world.start()
    assert world.told[0].startswith(f"{world.journal.path}: it is no JSON")
    assert "kept as" in world.told[0]
    assert "taskset" in world.told[0]
    assert steerer.steer(step(PID, SteerKind.PIN, 1)).threads == {ThreadFate.PINNED: 1}


def test_a_journal_in_use_is_left_alone_and_nothing_is_steered(world: World) -> None:
    world.calls.add(100)
    world.steerer.steer(step(PID, SteerKind.PIN, 1))
    text = world.journal.path.read_text(encoding="ascii")
    write_tree(world.root, {"proc/200/stat": stat_line(200, "balancerd", start_ticks=3)})
    world.journal.path.write_text(text.replace(f'"daemon":[{os.getpid()},7]', '"daemon":[200,3]'), encoding="ascii")
    before = world.journal.path.read_text(encoding="ascii")
    steerer = world.start()
    assert "another balancerd that runs, pid 200" in world.told[0]
    assert steerer.steer(step(PID, SteerKind.PIN, 1)).stopped_by is Reason.NO_JOURNAL
    assert world.journal.path.read_text(encoding="ascii") == before


def test_a_daemon_that_never_steers_needs_no_directory_and_tells_nothing(tmp_path: Path) -> None:
    told: list[str] = []
    steerer = Steerer(FakeClock(), Journal(tmp_path / "none"), told.append)
    steerer.recover()
    assert steerer.restore_all() == {}
    assert told == []


def test_what_a_daemon_wrote_before_a_reboot_is_removed(world: World) -> None:
    world.calls.add(100)
    world.steerer.steer(step(PID, SteerKind.PIN, 1))
    write_tree(world.root, {"proc/sys/kernel/random/boot_id": "two\n"})
    world.start().restore_all()
    assert world.calls.cpus[100] == {1}, "another thread by now, whatever its numbers are"
    assert not world.journal.path.exists()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"0::/a\n", {2: "/a"}),
        (b"12:cpuset:/x\n4:memory:/y\n0::/z\n", {1: "/x", 2: "/z"}),
        (b"3:cpu,cpuset:/x\n", {1: "/x"}),
    ],
)
def test_memberships_are_told_by_version(text: bytes, found: dict[int, str]) -> None:
    assert parse_memberships(text, "cgroup") == found


def test_a_line_that_is_no_membership_is_an_error() -> None:
    with pytest.raises(ParseError, match="cgroup:2"):
        parse_memberships(b"0::/a\nx\n", "cgroup")


@pytest.mark.parametrize(
    ("mount", "membership", "files", "cpus"),
    [
        ("cgroup2 cgroup2 rw", "0::/a/b\n", {"a/b/cpuset.cpus.effective": "2\n"}, {2}),
        ("cgroup2 cgroup2 rw", "0::/a/b\n", {"cpuset.cpus.effective": "1-2\n"}, {1, 2}),
        ("cgroup cgroup rw,cpuset", "4:cpuset:/a\n0::/q\n", {"a/cpuset.effective_cpus": "3\n"}, {3}),
        ("cgroup cgroup rw,memory", "4:memory:/a\n", {"a/cpuset.effective_cpus": "3\n"}, {0, 1}),
        ("tmpfs tmpfs rw", "0::/a\n", {}, {0, 1}),
    ],
)
def test_the_cpuset_is_that_of_the_nearest_cgroup_that_has_one(
    tmp_path: Path, mount: str, membership: str, files: dict[str, str], cpus: set[int]
) -> None:
    write_tree(
        tmp_path,
        {
            "proc/9/cgroup": membership,
            "proc/self/mountinfo": f"30 20 0:26 / {tmp_path}/cgroup rw - {mount}\n",
            "sys/devices/system/cpu/online": "0-1\n",
            **{f"cgroup/{name}": text for name, text in files.items()},
        },
    )
    assert read_cpuset_cpus(9, str(tmp_path / "proc"), str(tmp_path / "sys")) == cpus


SPINNING = """
import os, threading
os.sched_setaffinity(0, {0})
def spin():
    while True: pass
threading.Thread(target=spin, daemon=True).start()
for tid in os.listdir('/proc/self/task'): os.sched_setaffinity(int(tid), {CPUS})
"""


@contextmanager
def spinning() -> Iterator[ProcessId]:
    if os.sched_getaffinity(0) < {0, 1}:
        pytest.skip("CPUs 0 and 1 are needed")
    with child(SPINNING.replace("CPUS", ", ".join(map(str, os.sched_getaffinity(0))))) as (_, process):
        yield process


def affinities(process: ProcessId) -> list[set[int]]:
    return [os.sched_getaffinity(int(task.name)) for task in Path(f"/proc/{process.pid}/task").iterdir()]


def test_real_threads_are_pinned_and_freed_by_a_daemon_that_starts(tmp_path: Path) -> None:
    told: list[str] = []
    all_cpus = os.sched_getaffinity(0)
    with spinning() as process:
        first = Steerer(MonotonicClock(), Journal(tmp_path), told.append)
        pin = first.steer(step(process, SteerKind.PIN, 1, own_affinity=True))
        assert sum(pin.threads.values()) == 2
        assert affinities(process) == [{1}, {1}]
        second = Steerer(MonotonicClock(), Journal(tmp_path), told.append)
        second.recover()
        assert affinities(process) == [all_cpus, all_cpus]
        assert list(tmp_path.iterdir()) == []


def test_real_threads_that_run_are_on_the_node_when_a_kick_ends(tmp_path: Path) -> None:
    all_cpus = os.sched_getaffinity(0)
    with spinning() as process:
        steerer = Steerer(MonotonicClock(), Journal(tmp_path), lambda _told: None)
        outcome = steerer.steer(step(process, SteerKind.KICK, 1, own_affinity=True))
        assert outcome.stopped_by is None
        assert sum(outcome.threads.values()) == 2
        steerer.steer(step(process, SteerKind.RELEASE))
        assert affinities(process) == [all_cpus, all_cpus]
