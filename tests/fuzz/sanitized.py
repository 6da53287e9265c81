"""A pytest plugin: the tests get the native core that was built with sanitizers, and fail if they did not use it.

`-p tests.fuzz.sanitized`, with the path of that core in BALANCERD_SANITIZED_CORE.  Must not know what the tests do.
"""

import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

NAME = "balancerd.native._core"


def _load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(NAME, path)
    assert isinstance(spec, ModuleSpec)
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CORE = _load(os.environ["BALANCERD_SANITIZED_CORE"])
sys.modules[NAME] = CORE
"""Before anybody imports the package, so that all get this one."""


def pytest_sessionfinish(session: pytest.Session) -> None:
    """The core in use is that of the sanitizers, to the end."""
    used = sys.modules["balancerd.native.binding"].lib
    if used is not CORE.lib:
        raise pytest.UsageError("the tests did not use the core that was built with sanitizers")
    session.config.get_terminal_writer().line(f"the core was {CORE.__file__}")
