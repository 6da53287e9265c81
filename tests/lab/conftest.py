"""What a lab test may say and use.

`@pytest.mark.topology("two-nodes")` names the machines whose inside a test runs in, one by one (default: four-nodes).
`@pytest.mark.kernel("6.12", "6.1")` names the kernels it runs on, each in a boot of its own (default: 6.12).
`@pytest.mark.thorough` leaves it out unless `--thorough` is given or it is asked for by its name: it takes long.
`@pytest.mark.host` keeps it outside; there the fixture `machine` is a booted machine of what it names.
"""

import os
from collections.abc import Iterator

import pytest

from tests.lab import kernel, service, topology
from tests.lab.machine import Machine, Options
from tests.lab.prestart import Prestart

INSIDE = os.environ.get("BALANCERD_LAB_TOPOLOGY")
INSIDE_KERNEL = os.environ.get("BALANCERD_LAB_KERNEL", kernel.DEFAULT)


class MachinePool:
    """At most one running machine, kept for the next test that wants the same topology and kernel."""

    def __init__(self) -> None:
        self.machine: Machine | None = None

    def get(self, name: str, series: str = kernel.DEFAULT) -> Machine:
        """A machine of this topology and kernel that answers: the one at hand, or a new one."""
        machine = self.machine
        if machine is not None:
            same = (machine.topology.name, machine.options.kernel) == (name, series)
            if not (same and machine.is_running()):
                self.shutdown()
        if self.machine is None:
            machine = Machine(topology.load(name), options=Options(kernel=series))
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


def kernels_of(item: pytest.Item) -> tuple[str, ...]:
    """The kernel series a test names, or the default."""
    marker = item.get_closest_marker("kernel")
    return marker.args if marker else (kernel.DEFAULT,)


def is_host_test(item: pytest.Item) -> bool:
    """Whether a test drives a machine from outside."""
    return item.get_closest_marker("host") is not None


def is_left_out(item: pytest.Item, config: pytest.Config) -> bool:
    """Whether a test is one of the thorough ones, and nobody asked for them."""
    asked = any(config.getoption(option, default=False) for option in ("--thorough", "--faults"))
    asked = asked or any("::" in word for word in config.args)
    return not asked and item.get_closest_marker("thorough") is not None


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer the tests that take long."""
    parser.addoption("--thorough", action="store_true", help="run also lab tests that take long")
    parser.addoption("--faults", action="store_true", help="try each fault as often as its figures need; takes long")
    parser.addoption("--fault-seed", type=int, default=1, metavar="N", help="what chooses when and where faults happen")


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers."""
    config.addinivalue_line("markers", "thorough: a lab test that takes long, and is left out unless asked for")
    config.addinivalue_line("markers", "topology(*names): the virtual machines a lab test runs in")
    config.addinivalue_line("markers", "kernel(*series): the kernels a lab test runs on")
    config.addinivalue_line("markers", "host: a lab test that runs outside and drives a machine")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Inside, keep this topology's and kernel's tests; outside, bring tests of one machine together."""
    lab_items = [item for item in items if item.path.is_relative_to(topology.TOPOLOGIES.parent)]
    for item in lab_items:
        unknown = set(topologies_of(item)) - set(topology.names())
        if unknown:
            raise pytest.UsageError(f"{item.nodeid}: no such topology: {', '.join(sorted(unknown))}")
        unknown = set(kernels_of(item)) - set(kernel.SERIES)
        if unknown:
            raise pytest.UsageError(f"{item.nodeid}: no such kernel: {', '.join(sorted(unknown))}")
    left_out = [item for item in lab_items if is_left_out(item, config)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
    if INSIDE is None:
        items.sort(key=lambda item: (kernels_of(item), topologies_of(item)) if item in lab_items else ())
        return
    elsewhere = [
        item
        for item in items
        if item in lab_items
        and (is_host_test(item) or INSIDE not in topologies_of(item) or INSIDE_KERNEL not in kernels_of(item))
    ]
    config.hook.pytest_deselected(items=elsewhere)
    items[:] = [item for item in items if item not in elsewhere]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test for the inside that is run outside fails: it must not pass for having been skipped."""
    if INSIDE is None and not is_host_test(item):
        pytest.fail(
            "runs inside a virtual machine only; use: python -m tests.lab test [PYTEST ARGUMENTS]", pytrace=False
        )


@pytest.fixture(scope="session", autouse=True)
def prestarted() -> Iterator[None]:
    """Inside, where reading all modules takes long, daemons are forked from a process that has read them."""
    if INSIDE is None:
        yield
        return
    service.prestart = Prestart()
    yield
    service.prestart.close()
    service.prestart = None


@pytest.fixture(scope="session")
def machine_pool() -> Iterator[MachinePool]:
    pool = MachinePool()
    yield pool
    pool.shutdown()


@pytest.fixture
def machine(request: pytest.FixtureRequest, machine_pool: MachinePool) -> Machine:
    return machine_pool.get(topologies_of(request.node)[0], kernels_of(request.node)[0])
