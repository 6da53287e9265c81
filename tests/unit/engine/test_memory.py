"""One memory for all books: what a step of a policy, a command and a reload each leave in them."""

from dataclasses import replace
from typing import Any

import pytest

from balancerd.engine.memory import EngineMemory, new_memory
from balancerd.model.decision import Decision, Reason, Steer
from balancerd.model.ids import CpuId, NodeId, ProcessId
from balancerd.model.migration import FailedRun, MigrationOutcome
from balancerd.model.page_status import PageStatus
from balancerd.model.sample import Snapshot
from tests.unit.fakes import (
    MIB,
    N0,
    N1,
    N2,
    make_placement,
    make_process,
    make_rates,
    make_run,
    make_snapshot,
    make_survey,
)
from tests.unit.reports import an_eviction_outcome, an_outcome

PID = ProcessId(100, 1)
RATES = make_rates(machine_mib=100, evict_mib=100)


def new() -> tuple[EngineMemory, MigrationOutcome]:
    """Return a memory, and an outcome of a move of it: 4 MiB, and one page that other processes map."""
    memory = new_memory(cooldown_seconds=60.0, rates=RATES, scan_budget_ratio=0.01)
    move_id = memory.moves.open(PID, "home", N0, Reason.MISPLACED, 0.0)
    shared = FailedRun(start=64 * MIB, end=64 * MIB + 4096, page_bytes=4096, status=PageStatus.SHARED)
    made = an_outcome(PID, pages={PageStatus.MOVED: 1024, PageStatus.SHARED: 1})
    done = replace(made, moved_runs=(make_run(0, 4),), failed_runs=(shared,), step=replace(made.step, move_id=move_id))
    return memory, done


def allowed_bytes(memory: EngineMemory) -> int:
    return memory.budgets.draft(0.0).allow(PID, {(N2, N0): 0}).budget_bytes


def test_a_step_of_a_policy_is_in_every_book() -> None:
    memory, done = new()
    memory.record(done, 0.0)
    hold = memory.ledger.hold(PID, 1.0)
    assert hold is not None
    assert hold.reason is Reason.COOLDOWN
    assert len(memory.ledger.held_ranges(PID, 1.0)) == 1
    assert allowed_bytes(memory) == 200 * MIB - 1025 * 4096
    assert [move.moved_pages for move in memory.moves.recent()] == [1024]
    assert [request.process for request in memory.returns.due(10.0)] == [PID]


def test_a_command_spends_and_can_be_undone_but_is_neither_held_nor_checked() -> None:
    memory, done = new()
    memory.returns.note(done, 0.0)
    memory.record_command(done, 1.0)
    assert memory.ledger.hold(PID, 2.0) is None
    assert memory.ledger.held_ranges(PID, 2.0) == ()
    assert allowed_bytes(memory) == 200 * MIB - 1025 * 4096
    assert [move.moved_pages for move in memory.moves.recent()] == [1024]
    assert memory.returns.due(1000.0) == ()


def test_an_eviction_holds_and_spends_its_own_budget() -> None:
    memory, _ = new()
    memory.record_eviction(an_eviction_outcome(PID), 0.0)
    assert memory.ledger.hold(PID, 1.0) is not None
    assert memory.budgets.allowed_eviction_bytes(0.0) == 200 * MIB - 1000 * 4096
    assert allowed_bytes(memory) == 200 * MIB


@pytest.mark.parametrize("move_all", [False, True])
def test_a_reload_keeps_all_of_it_but_what_the_new_settings_allow(move_all: bool) -> None:
    memory, done = new()
    memory.record(done, 0.0)
    memory.obey(cooldown_seconds=5.0, rates=make_rates(machine_mib=50), move_all=move_all, scan_budget_ratio=0.02)
    assert memory.ledger.hold(PID, 59.0) is not None
    assert len(memory.ledger.held_ranges(PID, 1.0)) == (0 if move_all else 1)
    assert allowed_bytes(memory) == 100 * MIB
    assert len(memory.moves.recent()) == 1
    assert len(memory.returns.due(10.0)) == 1


def test_who_is_gone_leaves_his_moves_alone_which_end() -> None:
    memory, done = new()
    memory.record(replace(done, resume_at=MIB), 0.0)
    assert memory.moves.recent()[0].ended_at is None
    memory.forget_all_but(frozenset({ProcessId(7, 1)}), 4.0)
    assert memory.moves.recent()[0].ended_at == 4.0
    assert memory.ledger.moving() == frozenset()
    assert memory.returns.due(1000.0) == ()


def wanting(pid: int, target: NodeId, **changes: Any) -> Decision:
    decision = Decision(
        policy="home",
        process=ProcessId(pid, 1),
        target=target,
        misplaced_bytes=1024 * MIB,
        gain_cores=0.1,
        cost_seconds=1.0,
    )
    return replace(decision, **changes)


def look(at: float, *pids: int) -> Snapshot:
    """All of their memory is on node 2."""
    placed = [replace(make_placement({2: 1024}, pid=pid, taken_at=at), exact=True) for pid in pids]
    return make_snapshot(make_survey(*map(make_process, pids), at=at), *placed)


@pytest.mark.parametrize(("canary", "most_bytes"), [(None, None), (False, None), (True, 64 * MIB)])
def test_a_part_is_tried_first_only_if_that_is_configured(canary: bool | None, most_bytes: int | None) -> None:
    for obeys in (False, True):
        memory = new_memory(
            cooldown_seconds=60.0,
            rates=RATES,
            scan_budget_ratio=0.01,
            **({} if obeys or canary is None else {"canary": canary}),
        )
        if obeys:
            given = {} if canary is None else {"canary": canary}
            memory.obey(cooldown_seconds=60.0, rates=RATES, move_all=False, scan_budget_ratio=0.01, **given)
        (decision,) = memory.review(look(0.0, 100), [wanting(100, N0)]).wanted
        assert isinstance(decision, Decision)
        assert decision.most_bytes == most_bytes


def test_who_waits_for_a_pause_and_who_is_not_trusted_are_both_told_and_who_holds_his_process_keeps_it() -> None:
    """Node 0 is full; what was moved of process 200 to node 1 did not stay."""
    memory = new_memory(cooldown_seconds=60.0, rates=RATES, scan_budget_ratio=0.01, canary=True)
    memory.review(look(0.0, 200), [wanting(200, N1)])
    there = an_outcome(ProcessId(200, 1), target=1, pages={PageStatus.MOVED: 64 * 256}, moved_from={2: 64 * 256})
    memory.record(replace(there, moved_runs=(make_run(0, 64, target=1),)), 1.0)
    memory.pause.note(an_outcome(PID, pages={PageStatus.NO_MEMORY: 10}), 1.5)
    wanted = [
        wanting(100, N0, policy="fixed", reason=Reason.RULE, holds=True),
        wanting(100, N0),
        wanting(200, N1),
        wanting(300, N1, policy="fixed", reason=Reason.RULE, holds=True),
    ]
    reviewed = memory.review(look(2.0, 100, 200, 300), wanted)
    assert [(skip.process.pid, skip.reason) for skip in reviewed.skips] == [
        (100, Reason.PAUSED),
        (100, Reason.PAUSED),
        (200, Reason.NOT_TRUSTED),
    ]
    assert [(skip.process.pid, skip.by, skip.reason, skip.holds) for skip in reviewed.kept] == [
        (100, "fixed", Reason.PAUSED, True)
    ]
    assert [(each.process.pid, each.reason) for each in reviewed.wanted] == [(200, Reason.ROLLBACK), (300, Reason.RULE)]


@pytest.mark.parametrize("by", ["policy", "command"])
def test_threads_of_who_was_moved_stay_with_their_memory_for_a_while(by: str) -> None:
    steer = Steer(
        policy="threads", process=PID, target=N2, cpus=frozenset({CpuId(2)}), gain_cores=0.1, cost_seconds=0.01
    )
    for pages, is_held in (({PageStatus.MOVED: 10}, True), ({PageStatus.BUSY: 10}, False)):
        memory, _ = new()
        note = memory.record if by == "policy" else memory.record_command
        note(an_outcome(PID, pages=pages), 0.0)
        assert (memory.owners.explain_hold(steer, 1.0) is not None) is is_held
