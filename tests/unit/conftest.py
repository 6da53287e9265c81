"""Puts the tools that some unit tests run (promtool, prometheus) on PATH; they are unpacked, never installed."""

import os

import pytest

from tests.lab.packages import ensure_tools
from tests.lab.state import lab_directory


def pytest_configure(config: pytest.Config) -> None:
    """Once for a run: the workers of pytest-xdist inherit the PATH."""
    if not hasattr(config, "workerinput"):
        found = map(str, ensure_tools(lab_directory().packages))
        os.environ["PATH"] = os.pathsep.join((*found, os.environ["PATH"]))
