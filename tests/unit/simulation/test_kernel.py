from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancerd.model.decision import Reason, Skip
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import EvictionStep, MigrationOutcome, VerifyRequest
from balancerd.model.page_status import PageStatus
from balancerd.model.placement_method import PlacementMethod
from balancerd.model.sample import PAGE_BYTES, SampleRequest
from balancerd.ports import SurveyScope
from tests.unit.simulation.machines import GIB, MIB, N0, N1, add, held_pages, make_kernel, make_machine, make_step

SCOPE = SurveyScope(min_rss_bytes=64 * MIB, min_cpu_cores=0.05)


def never() -> bool:
    return False


def check_pages(outcome: MigrationOutcome) -> None:
    """Every page that was submitted ends under a status, and every moved page is in a run."""
    moved = outcome.pages.get(PageStatus.MOVED, 0)
    assert outcome.submitted_pages == sum(outcome.pages.values())
    assert sum((run.end - run.start) // PAGE_BYTES for run in outcome.moved_runs) == moved
    assert sum(outcome.moved_from.values()) == moved
    assert outcome.looked_pages == outcome.on_target_pages + outcome.submitted_pages + sum(outcome.passed_over.values())


def test_a_move_takes_its_time_by_bandwidth_and_rests_in_between() -> None:
    machine = make_machine()
    process = add(machine, (0,), (1,), memory_bytes=GIB)
    kernel, clock = make_kernel(machine)
    outcome = kernel.migrate(make_step(process, 0), never)
    check_pages(outcome)
    assert (process.pages_on(), outcome.resume_at, outcome.stopped_by) == ({N0: GIB // PAGE_BYTES}, None, None)
    assert sum(outcome.call_seconds) == pytest.approx(0.5)
    assert clock.now() == pytest.approx(1.0)
    assert clock.cpu_seconds() == pytest.approx(0.5)
    assert max(outcome.call_seconds) == pytest.approx(0.005, rel=0.2)


def test_a_step_ends_with_its_budget_and_the_next_goes_on_there() -> None:
    machine = make_machine()
    process = add(machine, (0,), (1,), memory_bytes=GIB)
    kernel, _ = make_kernel(machine)
    first = kernel.migrate(make_step(process, 0, budget_bytes=300 * MIB), never)
    check_pages(first)
    assert first.moved_pages == 300 * MIB // PAGE_BYTES
    assert first.resume_at == process.parts[0].start + 300 * MIB
    short = kernel.migrate(make_step(process, 0, resume_at=first.resume_at, budget_seconds=0.1), never)
    check_pages(short)
    assert 0 < short.moved_pages < 700 * MIB // PAGE_BYTES
    last = kernel.migrate(make_step(process, 0, resume_at=short.resume_at), never)
    check_pages(last)
    assert (last.resume_at, process.pages_on()) == (None, {N0: GIB // PAGE_BYTES})


def test_what_finds_no_room_fails_with_enomem_and_ends_the_step() -> None:
    machine = make_machine()
    add(machine, (0,), memory_bytes=3 * GIB + 512 * MIB)
    process = add(machine, (0,), (1,), memory_bytes=GIB)
    room = machine.nodes[0].room_pages
    kernel, _ = make_kernel(machine)
    outcome = kernel.migrate(make_step(process, 0), never)
    check_pages(outcome)
    assert outcome.stopped_by is Reason.NO_MEMORY
    assert outcome.moved_pages == room
    assert outcome.pages[PageStatus.NO_MEMORY] > 0
    assert outcome.resume_at == process.parts[0].start + room * PAGE_BYTES
    assert machine.nodes[0].room_pages == 0


def test_pages_that_others_map_are_refused_and_told_where() -> None:
    machine = make_machine()
    process = add(machine, (0,), (1,), memory_bytes=GIB, foreign_ratio=0.25)
    kernel, _ = make_kernel(machine)
    outcome = kernel.migrate(make_step(process, 0), never)
    check_pages(outcome)
    assert outcome.pages == {PageStatus.MOVED: GIB * 3 // 4 // PAGE_BYTES, PageStatus.SHARED: GIB // 4 // PAGE_BYTES}
    (part,) = (part for part in process.parts if part.is_foreign)
    assert (outcome.failed_runs[0].start, outcome.failed_runs[-1].end) == (part.start, part.end)
    again = kernel.migrate(make_step(process, 0, move_all=True), never)
    assert (again.moved_pages, process.pages_on()) == (GIB // 4 // PAGE_BYTES, {N0: GIB // PAGE_BYTES})


def test_each_source_goes_to_its_own_target_and_what_has_none_stays() -> None:
    machine = make_machine(nodes=3)
    process = add(machine, (0,), (0, 1, 2), memory_bytes=768 * MIB)
    kernel, _ = make_kernel(machine)
    outcome = kernel.migrate(make_step(process, 0, target_of={N1: NodeId(2)}), never)
    third = 256 * MIB // PAGE_BYTES
    assert (process.pages_on(), outcome.moved_from, outcome.resume_at) == ({N0: third, 2: 2 * third}, {N1: third}, None)


@pytest.mark.parametrize(("stops", "reason"), [(True, Reason.STOPPING), (False, Reason.EXITED)])
def test_a_step_that_may_not_go_on_says_why(stops: bool, reason: Reason) -> None:
    machine = make_machine()
    process = add(machine, (0,), (1,))
    kernel, _ = make_kernel(machine)
    if not stops:
        machine.remove(process)
    outcome = kernel.migrate(make_step(process, 0), lambda: stops)
    assert (outcome.stopped_by, outcome.submitted_pages) == (reason, 0)


def test_a_process_that_exits_while_it_moves_leaves_an_account_of_what_moved() -> None:
    machine = make_machine()
    process = add(machine, (0,), (1,), memory_bytes=GIB)
    machine.at(0.1, lambda: machine.remove(process))
    kernel, _ = make_kernel(machine)
    outcome = kernel.migrate(make_step(process, 0), never)
    check_pages(outcome)
    assert (outcome.stopped_by, outcome.moved_pages > 0) == (Reason.EXITED, True)
    assert held_pages(machine) == {N0: 0, N1: 0} == {node.id: node.used_pages for node in machine.nodes}


@given(
    lies_on=st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True),
    mib=st.integers(1, 1500),
    foreign=st.sampled_from([0.0, 0.3]),
    full=st.integers(0, 3900),
    steps=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 2000), st.floats(0.01, 2.0)), min_size=1, max_size=6),
)
def test_memory_is_conserved_and_every_page_is_in_the_outcome(
    lies_on: list[int], mib: int, foreign: float, full: int, steps: list[tuple[int, int, float]]
) -> None:
    machine = make_machine(nodes=3)
    if full:
        add(machine, (0,), (0,), memory_bytes=full * MIB)
    process = add(machine, (0,), tuple(lies_on), memory_bytes=mib * MIB, foreign_ratio=foreign)
    kernel, _ = make_kernel(machine)
    total = process.n_pages
    resume_at: Mapping[int, int] = {}
    for target, budget_mib, seconds in steps:
        step = make_step(
            process,
            target,
            budget_bytes=budget_mib * MIB,
            budget_seconds=seconds,
            resume_at=resume_at.get(target, 0),
        )
        before = process.pages_on().get(NodeId(target), 0)
        outcome = kernel.migrate(step, never)
        check_pages(outcome)
        assert process.pages_on().get(NodeId(target), 0) - before == outcome.moved_pages
        assert outcome.submitted_pages <= budget_mib * MIB // PAGE_BYTES
        resume_at = {target: outcome.resume_at or 0}
        assert sum(process.pages_on().values()) == total
        assert held_pages(machine) == {node.id: node.used_pages for node in machine.nodes}
        assert all(node.free_pages >= 0 for node in machine.nodes)


def test_a_survey_tells_what_ran_since_the_one_before_and_nothing_of_small_ones() -> None:
    machine = make_machine()
    busy = add(machine, (0,), cpu_cores=0.5)
    add(machine, (1,), memory_bytes=16 * MIB)
    kernel, clock = make_kernel(machine)
    first = kernel.survey(SCOPE)
    assert ([p.id for p in first.processes], first.small_processes) == ([busy.id], 1)
    assert (first.processes[0].cpu_cores, first.processes[0].run_seconds) == (None, None)
    machine.at(3.0, lambda: machine.move_thread(busy.threads[0], N1))
    clock.wait_until(first.taken_at + 4.0)
    (second,) = kernel.survey(SCOPE).processes
    assert second.cpu_cores == pytest.approx(0.5, rel=0.01)
    assert dict(second.run_seconds or {}) == pytest.approx({N1: 2.0}, rel=0.01)


def test_a_process_that_changes_nothing_is_told_by_the_very_same_object_until_it_does() -> None:
    machine = make_machine()
    process = add(machine, (0,), cpu_cores=0.5)
    kernel, clock = make_kernel(machine)
    told = []
    for number in range(6):
        clock.wait_until(2.0 * number)
        if number == 4:
            machine.advance(7.0)
            machine.move_thread(process.threads[0], N1)
        told.append(kernel.survey(SCOPE).processes[0])
    assert told[2] is told[3]
    assert told[4] is not told[3]
    assert told[5] is not told[4]
    assert [set(p.run_seconds or {}) for p in told[2:]] == [{N0}, {N0}, {N1}, {N1}]


def test_an_exact_sample_tells_the_truth_and_another_one_errs_as_2048_answers_do() -> None:
    machine = make_machine()
    process = add(machine, (0,), (0, 1), memory_bytes=GIB)
    request = SampleRequest(process=process.id, rss_bytes=GIB)
    exact = make_kernel(machine)[0].sample((request,)).placements[0]
    assert (exact.exact, exact.bytes_by_node) == (True, {N0: GIB // 2, N1: GIB // 2})
    kernel, _ = make_kernel(machine, exact=False)
    shares = [kernel.sample((request,)).placements[0].bytes_by_node[N0] / GIB for _ in range(400)]
    assert sum(shares) / 400 == pytest.approx(0.5, abs=0.003)
    spread = (sum((share - 0.5) ** 2 for share in shares) / 400) ** 0.5
    assert spread == pytest.approx(0.5 / 2048**0.5, rel=0.2)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    machine = make_machine()
    process = add(machine, (0,), (0, 1, 1, 1, 1), memory_bytes=GIB)
    kernel, _ = make_kernel(machine, exact=False)
    samples = [
        kernel.sample((SampleRequest(process=process.id, rss_bytes=GIB),)).placements[0].intervals[N0]
        for _ in range(400)
    ]
    assert sum(each.low <= 0.2 <= each.high for each in samples) / 400 == pytest.approx(0.95, abs=0.035)


def test_a_well_placed_process_passes_a_short_test_and_a_misplaced_one_does_not() -> None:
    machine = make_machine()
    placed, misplaced = add(machine, (0,), (0,)), add(machine, (0,), (1,))
    kernel, _ = make_kernel(machine, exact=False)
    requests = [SampleRequest(process=p.id, rss_bytes=256 * MIB, home=N0) for p in (placed, misplaced)]
    methods = [each.method for each in kernel.sample(tuple(requests)).placements]
    assert methods == [PlacementMethod.TEST, PlacementMethod.SAMPLE]


def test_mempolicies_are_known_once_they_were_read() -> None:
    machine = make_machine()
    process = add(machine, (0,))
    kernel, _ = make_kernel(machine, exact=False)
    without, read, later = (
        kernel.sample((SampleRequest(process=process.id, rss_bytes=256 * MIB, read_mempolicies=reads),)).placements[0]
        for reads in (False, True, False)
    )
    assert [each.mempolicies_at is not None for each in (without, read, later)] == [False, True, True]
    assert [each.vmas[0].vma.page_bytes for each in (without, read, later)] == [None, PAGE_BYTES, PAGE_BYTES]
    assert [each.complete for each in (without, read, later)] == [False, True, True]


def test_a_check_finds_what_has_left_again() -> None:
    machine = make_machine()
    process = add(machine, (0,), (1,), memory_bytes=GIB)
    kernel, _ = make_kernel(machine)
    outcome = kernel.migrate(make_step(process, 0), never)
    request = VerifyRequest(process=process.id, runs=outcome.moved_runs, asked_pages=256)
    found = kernel.verify(request)
    assert not isinstance(found, Skip)
    assert (found.total.elsewhere_pages, len(found.runs)) == (0, len(request.runs))
    machine.move_pages(process, process.parts[0], range(GIB // PAGE_BYTES), N1, GIB // 4 // PAGE_BYTES)
    again = kernel.verify(request)
    assert not isinstance(again, Skip)
    assert again.total.elsewhere_pages / again.total.asked_pages == pytest.approx(0.25, abs=0.01)
    machine.remove(process)
    assert kernel.verify(request) == Skip(by="kernel", process=process.id, reason=Reason.EXITED)


def test_a_whole_move_goes_as_far_as_there_is_room() -> None:
    machine = make_machine()
    process = add(machine, (0,), (1,), memory_bytes=GIB)
    kernel, clock = make_kernel(machine)
    moved = kernel.migrate_whole(process.id, {N1: N0})
    assert (moved.not_moved_pages, moved.before_bytes, moved.after_bytes) == (0, {N1: GIB}, {N0: GIB})
    assert clock.now() == pytest.approx(0.5)
    assert kernel.migrate_whole(ProcessId(7, 1), {N1: N0}).stopped_by is Reason.EXITED


def test_nothing_is_evicted_where_there_is_no_swap() -> None:
    machine = make_machine()
    process = add(machine)
    kernel, _ = make_kernel(machine)
    step = EvictionStep(policy="cold", process=process.id, ranges=(), resume_at=0, budget_bytes=GIB, budget_seconds=1.0)
    assert kernel.evict(step, never).stopped_by is Reason.NO_SWAP
