"""Puts tools that unit tests run (promtool, mandoc ...) on PATH, unpacked, never installed; sets up hypothesis."""

import os

import pytest
from hypothesis import HealthCheck, settings

from tests.lab.packages import ensure_tools
from tests.lab.state import lab_directory

settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")
"""Machines are shared and noisy: how long an example takes says nothing."""

settings.register_profile("long", settings.get_profile("shared"), max_examples=2_000)
"""That of `make fuzz`."""


def pytest_configure(config: pytest.Config) -> None:
    """Once for a run: the workers of pytest-xdist inherit the PATH."""
    if not hasattr(config, "workerinput"):
        found = map(str, ensure_tools(lab_directory().packages))
        os.environ["PATH"] = os.pathsep.join((*found, os.environ["PATH"]))
