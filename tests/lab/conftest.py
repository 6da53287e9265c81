"""What a lab test may say and use.

`@pytest.mark.topology("two-nodes")` names the machines whose inside a test runs in, one by one (default: four-nodes).
`@pytest.mark.host` keeps it outside; there the fixture `machine` is a booted machine of the topology it names.
"""

import os
from collections.abc import Iterator

import pytest

from tests.lab import topology
from tests.lab.machine import Machine

INSIDE = os.environ.get("BALANCERD_LAB_TOPOLOGY")


class MachinePool:
    """At most one running machine, kept for the next test that wants the same topology."""

    def __init__(self) -> None:
        self.machine: Machine | None = None

    def get(self, name: str) -> Machine:
        """A machine of this topology that answers: the one at hand, or a new one."""
        if self.machine is not None and (self.machine.topology.name != name or not self.machine.is_running()):
            self.shutdown()
        if self.machine is None:
            machine = Machine(topology.load(name))
            machine.boot()
            self.machine = machine
        return self.machine

    def shutdown(self) -> None:
        """End the machine at hand, if any."""
        if self.machine is not None:
            self.machine.shutdown()
            self.machine = None


def topologies_of(item: pytest.Item) -> tuple[str, ...]:
    """The topologies a test names, or the default."""
    marker = item.get_closest_marker("topology")
    return marker.args if marker else (topology.DEFAULT,)


def is_host_test(item: pytest.Item) -> bool:
    """Whether a test drives a machine from outside."""
    return item.get_closest_marker("host") is not None


def pytest_configure(config: pytest.Config) -> None:
    """Register the two markers."""
    config.addinivalue_line("markers", "topology(*names): the virtual machines a lab test runs in")
    config.addinivalue_line("markers", "host: a lab test that runs outside and drives a machine")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Inside, keep this topology's tests; outside, bring tests of one topology together."""
    lab_items = [item for item in items if item.path.is_relative_to(topology.TOPOLOGIES.parent)]
    for item in lab_items:
        unknown = set(topologies_of(item)) - set(topology.names())
        if unknown:
            raise pytest.UsageError(f"{item.nodeid}: no such topology: {', '.join(sorted(unknown))}")
    if INSIDE is None:
        items.sort(key=lambda item: topologies_of(item) if item in lab_items else ())
        return
    elsewhere = [item for item in lab_items if is_host_test(item) or INSIDE not in topologies_of(item)]
    config.hook.pytest_deselected(items=elsewhere)
    items[:] = [item for item in items if item not in elsewhere]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test for the inside that is run outside fails: it must not pass for having been skipped."""
    if INSIDE is None and not is_host_test(item):
        pytest.fail(
            "runs inside a virtual machine only; use: python -m tests.lab test [PYTEST ARGUMENTS]", pytrace=False
        )


@pytest.fixture(scope="session")
def machine_pool() -> Iterator[MachinePool]:
    pool = MachinePool()
    yield pool
    pool.shutdown()


@pytest.fixture
def machine(request: pytest.FixtureRequest, machine_pool: MachinePool) -> Machine:
    return machine_pool.get(topologies_of(request.node)[0])
