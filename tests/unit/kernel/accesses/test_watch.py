"""Who is watched, by which source, and what becomes of those that are not."""

import errno

import pytest

from balancerd.kernel.accesses.watch import PROBE_SECONDS, RETRY_SECONDS, Watcher
from balancerd.kernel.errors import ParseError, ProcessGoneError
from balancerd.model.access import Accesses, AccessMethod, AccessWindow, Obstacle
from balancerd.model.decision import Reason
from balancerd.model.ids import ProcessId
from tests.unit.fakes import FakeClock, make_access_window

IDS = [ProcessId(pid, 1) for pid in range(5)]


class FakeSource:
    """Keeps who is open; `obstacle` and `raises` are a test's to set."""

    method = AccessMethod.REGISTERS

    def __init__(self, obstacle: Obstacle | None = None) -> None:
        self.obstacle = obstacle
        self.probes = 0
        self.opened: list[ProcessId] = []
        self.open_now: list[ProcessId] = []
        self.raises: dict[ProcessId, Exception] = {}

    def probe(self) -> Obstacle | None:
        self.probes += 1
        return self.obstacle

    def open(self, process: ProcessId) -> None:
        self.opened.append(process)
        self.open_now.append(process)

    def read(self, process: ProcessId) -> AccessWindow:
        if process in self.raises:
            raise self.raises[process]
        assert process in self.open_now
        return make_access_window(pid=process.pid)

    def close(self, process: ProcessId) -> None:
        if process in self.open_now:
            self.open_now.remove(process)


def missed(found: Accesses) -> dict[int, str]:
    assert {skip.reason for skip in found.missed.values()} <= {Reason.NOT_WATCHED}
    return {process.pid: skip.detail for process, skip in found.missed.items()}


def test_each_process_is_opened_once_and_read_each_time() -> None:
    source = FakeSource()
    watcher = Watcher(FakeClock(), [source], most_processes=2)
    for _ in range(3):
        found = watcher.read(IDS[:2])
        assert set(found.windows) == set(IDS[:2])
    assert source.opened == IDS[:2]
    assert source.probes == 1


def test_who_is_asked_for_no_more_is_closed() -> None:
    source = FakeSource()
    watcher = Watcher(FakeClock(), [source], most_processes=2)
    watcher.read(IDS[:2])
    watcher.read(IDS[1:3])
    assert source.open_now == IDS[1:3]
    watcher.read(())
    assert source.open_now == []


def test_no_more_than_allowed_are_watched_and_who_is_watched_stays() -> None:
    source = FakeSource()
    watcher = Watcher(FakeClock(), [source], most_processes=2)
    watcher.read([IDS[3], IDS[4]])
    found = watcher.read(IDS)
    assert set(found.windows) == {IDS[3], IDS[4]}
    assert missed(found) == dict.fromkeys(range(3), "others are watched: accesses.max_processes")
    watcher.use([source], most_processes=3)
    assert set(watcher.read(IDS).windows) == {IDS[0], IDS[3], IDS[4]}


def test_the_first_source_that_works_is_used() -> None:
    broken, working, unused = FakeSource(Obstacle(seen="no", fix="none")), FakeSource(), FakeSource()
    watcher = Watcher(FakeClock(), [broken, working, unused], most_processes=2)
    assert set(watcher.read(IDS[:1]).windows) == {IDS[0]}
    assert (broken.opened, working.opened, unused.opened) == ([], [IDS[0]], [])


def test_a_process_that_a_source_cannot_watch_is_watched_by_the_next_and_stays_there() -> None:
    first, second = FakeSource(), FakeSource()
    first.raises[IDS[0]] = OSError(errno.EMFILE, "Too many open files")
    watcher = Watcher(FakeClock(), [first, second], most_processes=2)
    assert set(watcher.read(IDS[:2]).windows) == set(IDS[:2])
    assert (first.open_now, second.open_now) == ([IDS[1]], [IDS[0]])
    first.raises.clear()
    watcher.read(IDS[:2])
    assert (first.open_now, second.open_now) == ([IDS[1]], [IDS[0]])


def test_a_process_that_is_gone_is_tried_by_no_other_source() -> None:
    first, second = FakeSource(), FakeSource()
    first.raises[IDS[0]] = ProcessGoneError("no process has pid 0")
    assert missed(Watcher(FakeClock(), [first, second], most_processes=2).read(IDS[:1])) == {0: "no process has pid 0"}
    assert (first.open_now, second.opened) == ([], [])


def test_of_a_process_that_no_source_can_watch_the_first_failure_is_told() -> None:
    first, second = FakeSource(), FakeSource()
    first.raises[IDS[0]], second.raises[IDS[0]] = ValueError("no page has room"), ValueError("no file")
    watcher = Watcher(FakeClock(), [first, second], most_processes=2)
    assert missed(watcher.read(IDS[:1])) == {0: "it cannot be watched: no page has room"}
    assert (first.open_now, second.open_now) == ([], [])


def test_when_a_source_no_longer_works_its_processes_go_to_the_next() -> None:
    clock, first, second = FakeClock(), FakeSource(), FakeSource()
    watcher = Watcher(clock, [first, second], most_processes=2)
    watcher.read(IDS[:1])
    first.obstacle = Obstacle(seen="kernel.numa_balancing=0", fix="switch it on")
    watcher.read(IDS[:1])
    assert first.open_now == [IDS[0]]
    clock.time += PROBE_SECONDS
    assert set(watcher.read(IDS[:1]).windows) == {IDS[0]}
    assert (first.open_now, second.open_now) == ([], [IDS[0]])
    first.obstacle = None
    clock.time += PROBE_SECONDS
    watcher.read(IDS[:1])
    assert second.open_now == [IDS[0]]  # what was counted is not thrown away


def test_without_a_source_that_works_the_first_obstacle_is_told_and_tried_again_soon() -> None:
    clock, source = FakeClock(), FakeSource(Obstacle(seen="EACCES at level 3", fix="CAP_PERFMON"))
    watcher = Watcher(clock, [source], most_processes=2)
    for _ in range(3):
        assert missed(watcher.read(IDS[:1])) == {0: "EACCES at level 3"}
    assert source.probes == 1
    source.obstacle = None
    clock.time += RETRY_SECONDS
    assert set(watcher.read(IDS[:1]).windows) == {IDS[0]}
    assert source.probes == 2
    clock.time += RETRY_SECONDS
    watcher.read(IDS[:1])
    assert source.probes == 2, "it works"
    nothing = Watcher(clock, [], most_processes=2)
    assert missed(nothing.read(IDS[:1])) == {0: "accesses.sources is empty"}


def test_a_source_before_one_that_works_is_tried_every_five_seconds_and_each_minute_once_it_works() -> None:
    clock, first, second = FakeClock(), FakeSource(Obstacle(seen="no", fix="none")), FakeSource()
    watcher = Watcher(clock, [first, second], most_processes=2)
    watcher.read(IDS[:1])
    first.obstacle = None
    clock.time += 4.5
    watcher.read(IDS[:2])
    assert (first.probes, second.open_now) == (1, IDS[:2])
    clock.time += 0.5
    watcher.read(IDS[1:3])
    assert (first.probes, first.open_now, second.open_now) == (2, [IDS[2]], [IDS[1]])
    clock.time += 59.5
    watcher.read(IDS[1:3])
    assert first.probes == 2
    clock.time += 0.5
    watcher.read(IDS[1:3])
    assert first.probes == 3


def test_of_several_sources_that_do_not_work_the_first_obstacle_is_told() -> None:
    sources = [FakeSource(Obstacle(seen=f"no {name}", fix="none")) for name in ("counters", "timer")]
    assert missed(Watcher(FakeClock(), sources, most_processes=2).read(IDS[:1])) == {0: "no counters"}


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ProcessGoneError("no process has pid 0"), "no process has pid 0"),
        (ValueError("no page has room"), "it cannot be watched: no page has room"),
        (OSError(errno.EMFILE, "Too many open files"), "it cannot be watched: [Errno 24] Too many open files"),
        (
            ParseError("/proc/0/limits", 3, b"x", "not a limit"),
            "it cannot be watched: /proc/0/limits:3: not a limit: 'x'",
        ),
    ],
)
def test_a_process_that_cannot_be_read_is_closed_and_opened_anew_the_others_are_not_disturbed(
    error: Exception, told: str
) -> None:
    source = FakeSource()
    source.raises[IDS[0]] = error
    watcher = Watcher(FakeClock(), [source], most_processes=2)
    found = watcher.read(IDS[:2])
    assert (set(found.windows), missed(found)) == ({IDS[1]}, {0: told})
    assert source.open_now == [IDS[1]]
    source.raises.clear()
    assert set(watcher.read(IDS[:2]).windows) == set(IDS[:2])


def test_other_sources_begin_with_nobody_open_in_the_old_ones() -> None:
    old, new = FakeSource(), FakeSource()
    watcher = Watcher(FakeClock(), [old], most_processes=2)
    watcher.read(IDS[:2])
    watcher.use([new], most_processes=2)
    assert old.open_now == []
    watcher.read(IDS[:2])
    assert new.open_now == IDS[:2]
