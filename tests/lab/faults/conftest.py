"""What a test of a fault may use: `fault(NAME, SENTENCE, few=, many=)`, its tally; many tries with `--faults`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.faults.tally import Tally

Fault = Callable[..., Tally]

FEW_SECONDS, MANY_SECONDS = 300, 3600
"""What one test may take."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give tests of faults the time that their tries take."""
    seconds = MANY_SECONDS if config.getoption("--faults") else FEW_SECONDS
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(seconds))


@pytest.fixture
def fault(request: pytest.FixtureRequest) -> Fault:
    """Return what makes a tally of `few` tries, or of `many`."""

    def make(name: str, what: str, *, few: int, many: int) -> Tally:
        tries = many if request.config.getoption("--faults") else few
        return Tally(name, what, tries=tries, seed=request.config.getoption("--fault-seed"))

    return make
