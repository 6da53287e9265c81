"""The policy threads on simulated machines: affinities there are what schedulers respect, and nobody loses by it."""

import pytest

from balancerd.config.schema import Config, PolicyConfig
from balancerd.model.decision import Reason
from balancerd.model.ids import CpuId, ProcessId
from balancerd.model.steering import SteerKind, SteerStep, ThreadFate
from balancerd.ports import SurveyScope
from balancerd.simulation.process import SimProcess
from balancerd.simulation.run import run_engine, run_without
from balancerd.simulation.schedulers import balance
from tests.simulations import make_means, random_scenario
from tests.unit.simulation.machines import MIB, N0, N1, add, make_kernel, make_machine

HOME = PolicyConfig(name="home", kind="follow-cpu")


def a_step(process: SimProcess, kind: SteerKind) -> SteerStep:
    return SteerStep(
        policy="threads", process=process.id, target=N1, cpus=frozenset(map(CpuId, range(4, 8))), kind=kind
    )


def test_kicked_threads_go_and_are_free() -> None:
    machine = make_machine()
    process = add(machine, (0, 0, 1))
    kernel, _ = make_kernel(machine)
    outcome = kernel.steer(a_step(process, SteerKind.KICK))
    assert outcome.threads == {ThreadFate.MOVED: 2, ThreadFate.THERE: 1}
    assert (outcome.held_threads, process.held_on) == (0, None)
    assert machine.settled().moving_seconds == pytest.approx(0.01)
    assert process.nodes == {N1}


def test_the_scheduler_leaves_pinned_threads_where_they_are_held() -> None:
    machine = make_machine()
    process = add(machine, (0, 0, 0, 0))
    kernel, _ = make_kernel(machine)
    assert kernel.steer(a_step(process, SteerKind.PIN)).held_threads == 4
    balance(machine)
    assert process.nodes == {N1}
    assert kernel.steer(a_step(process, SteerKind.RELEASE)).threads == {ThreadFate.RESTORED: 4}
    balance(machine)
    assert process.nodes == {N0, N1}


def test_an_affinity_of_the_scenario_is_respected_and_who_is_gone_is_told() -> None:
    machine = make_machine()
    process = add(machine, (0,), allowed=(0,))
    kernel, _ = make_kernel(machine)
    assert kernel.steer(a_step(process, SteerKind.KICK)).stopped_by is Reason.OUTSIDE_AFFINITY
    assert process.nodes == {N0}
    machine.remove(process)
    assert kernel.steer(a_step(process, SteerKind.KICK)).stopped_by is Reason.EXITED
    assert ProcessId(100, 1) == process.id


def test_the_survey_tells_how_busy_nodes_are() -> None:
    machine = make_machine()
    add(machine, (0, 0, 0))
    kernel, _ = make_kernel(machine)
    survey = kernel.survey(SurveyScope(min_rss_bytes=64 * MIB, min_cpu_cores=0.05))
    assert survey.machine is not None
    assert [state.load_ratio for state in survey.machine.nodes.values()] == [0.75, 0.0]


@pytest.mark.parametrize("method", ["kick", "pin"])
@pytest.mark.parametrize("seed", [1, 3])
def test_threads_that_go_to_memory_cost_less_than_memory_that_follows(seed: int, method: str) -> None:
    threads = PolicyConfig.model_validate({"name": "threads", "kind": "threads", "method": method})
    scenario = random_scenario(seed)
    nothing = run_without(scenario, seed)
    home = run_engine(scenario, seed, make_means())
    run = run_engine(scenario, seed, make_means(Config(policies=(threads, HOME))))
    assert run.policy_errors == {}
    assert run.accounts.thread_moves > home.accounts.thread_moves
    assert run.accounts.oscillated_bytes == 0
    assert run.accounts.moved_bytes <= home.accounts.moved_bytes
    assert run.work_seconds < home.work_seconds < nothing.work_seconds
