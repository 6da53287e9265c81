"""The kernel is asked about the memory of a workload now and then, and what it said is kept in between."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from balancerd.kernel.workloads.accounts import ASK_SECONDS, MOST_AT_ONCE, WorkloadAccounts
from balancerd.model.ids import NodeId
from balancerd.model.sample import ProcessSample
from balancerd.model.workload import Workload, WorkloadKind
from tests.unit.fakes import N0, FakeClock, make_process


class Asked:
    """Answers with how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.silent: set[str] = set()

    def read(self, cgroups: Iterable[str]) -> Mapping[str, Mapping[NodeId, int]]:
        self.asked.append(list(cgroups))
        return {cgroup: {N0: len(self.asked)} for cgroup in self.asked[-1] if cgroup not in self.silent}


def member(cgroup: str | None, pid: int = 100, *, running: bool = True) -> ProcessSample:
    process = make_process(pid, workload=Workload(kind=WorkloadKind.UNIT, name=f"unit of {cgroup}", cgroup=cgroup))
    return process if running else replace(process, run_seconds=None)


def test_a_cgroup_is_asked_for_once_in_a_while_and_its_answer_is_kept() -> None:
    clock, asked = FakeClock(), Asked()
    accounts = WorkloadAccounts(clock, asked.read)
    first = accounts.of([member("/a"), member("/a", 101), member("/b", 102)])
    assert first == {"/a": {N0: 1}, "/b": {N0: 1}}
    clock.time += ASK_SECONDS - 0.1
    assert accounts.of([member("/a"), member("/b", 102)]) is first
    clock.time += 0.1
    assert accounts.of([member("/a"), member("/b", 102, running=False)]) == {"/a": {N0: 2}, "/b": {N0: 1}}
    assert asked.asked == [["/a", "/b"], ["/a"]]


def test_the_idle_the_root_and_the_unknown_are_not_asked_for() -> None:
    asked = Asked()
    accounts = WorkloadAccounts(FakeClock(), asked.read)
    processes = [member("/idle", running=False), member("/", 101), member(None, 102), make_process(103)]
    assert accounts.of(processes) == {}
    assert asked.asked == []


def test_who_is_gone_is_forgotten_and_who_does_not_answer_any_more_is_unknown() -> None:
    clock, asked = FakeClock(), Asked()
    accounts = WorkloadAccounts(clock, asked.read)
    accounts.of([member("/a"), member("/b", 101)])
    asked.silent.add("/a")
    clock.time += ASK_SECONDS
    assert accounts.of([member("/a"), member("/b", 101)]) == {"/b": {N0: 2}}
    assert accounts.of([member("/a")]) == {}


def test_only_some_are_asked_for_at_once_the_longest_unasked_first() -> None:
    clock, asked = FakeClock(), Asked()
    accounts = WorkloadAccounts(clock, asked.read)
    processes = [member(f"/{n:02}", 100 + n) for n in range(MOST_AT_ONCE + 4)]
    assert len(accounts.of(processes)) == MOST_AT_ONCE
    clock.time += 1.0
    assert len(accounts.of(processes)) == MOST_AT_ONCE + 4
    assert asked.asked[1] == [f"/{n:02}" for n in range(MOST_AT_ONCE, MOST_AT_ONCE + 4)]
