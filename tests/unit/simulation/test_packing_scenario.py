"""Packing on a simulated machine with a node that is nearly full: what it keeps free there, and what that costs."""

import pytest

from balancerd.config.schema import Config, PolicyConfig
from balancerd.simulation import loading
from balancerd.simulation.run import Run, run_engine, run_without
from balancerd.simulation.scenario import SchedulerKind
from tests.simulations import KINDS, make_means, under
from tests.unit.fakes import GIB, N0

HOME = PolicyConfig(name="home", kind="follow-cpu")
PACK = PolicyConfig(name="pack", kind="packing")


def least_free_gib(run: Run) -> float:
    """On the node that is nearly full, after the first minute."""
    return min(moment.free_bytes[N0] for moment in run.moments if moment.at_seconds > 60.0) / GIB


@pytest.mark.parametrize("kind", KINDS)
def test_a_node_under_pressure_keeps_memory_free_and_nothing_takes_longer(kind: SchedulerKind) -> None:
    scenario = under(loading.load("pressure"), kind, 900.0)
    nothing = run_without(scenario, 1)
    home = run_engine(scenario, 1, make_means(Config(policies=(HOME,))))
    both = run_engine(scenario, 1, make_means(Config(policies=(PACK, HOME))))
    assert not both.policy_errors
    free = [least_free_gib(run) for run in (nothing, home, both)]
    print(f"{kind}: free {free} GiB, work {both.work_seconds / nothing.work_seconds:.4f} of nothing's")
    assert max(free[:2]) < 0.1
    assert free[2] > 0.5
    assert both.work_seconds <= 1.01 * nothing.work_seconds
    assert both.accounts.oscillated_bytes == 0
    assert both.accounts.returned_bytes <= home.accounts.returned_bytes, "nobody comes back for it"
