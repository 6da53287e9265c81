"""Runs tests on a module with a fault in it, in a process of its own that has only balancerd itself to import.

Owns the process. Must not know how a fault is made. Nothing is written into the tree.
"""

import ast
import gc
import importlib
import os
import resource
import sys
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType

ROOT = Path(__file__).parents[2]
LONGEST_BYTES = 4 << 30
"""Of address space: a list without an end finds its end here."""

PROFILE = "mutants"
ARGUMENTS = (
    *("-x", "-q", "--tb=no", "--no-header", "--no-summary", "--assert=plain", "-p", "no:cacheprovider"),
    *("-p", "no:randomly", "-p", "no:xdist", "-p", "pytest_timeout", "--timeout", "60"),
    *("-p", "_hypothesis_pytestplugin", "--hypothesis-profile", PROFILE),
)
OURS = ("balancerd", "tests")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How pytest ended: its exit status, or minus the signal that ended it; and the CPU time that it took."""

    status: int
    cpu_seconds: float

    @property
    def passed(self) -> bool:
        """Whether no test found anything."""
        return self.status == 0


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, code: CodeType) -> None:
        super().__init__(name, path)
        self._code = code

    def get_code(self, fullname: str) -> CodeType:
        del fullname
        return self._code


class _Finder(MetaPathFinder):
    def __init__(self, name: str, path: str, code: CodeType) -> None:
        self._name, self._path, self._code = name, path, code

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if fullname != self._name:
            return None
        return spec_from_file_location(fullname, self._path, loader=_Loader(fullname, self._path, self._code))


def prepare(storage: str) -> None:
    """Import pytest and hypothesis, so that no trial has to; what hypothesis writes goes to the folder `storage`."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = storage
    importlib.import_module("pytest")
    hypothesis = importlib.import_module("hypothesis")
    importlib.import_module("hypothesis.strategies")
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)  # nobody reads what a failure could be shrunk to
    checks = (hypothesis.HealthCheck.too_slow,)
    hypothesis.settings.register_profile(
        PROFILE, database=None, deadline=None, derandomize=True, phases=phases, suppress_health_check=checks
    )


def load(tests: Sequence[str]) -> None:
    """Import what these tests import, so that each trial has only to import what a fault can reach."""
    sys.path[:0] = [] if str(ROOT) in sys.path else [str(ROOT)]
    for file in ("tests/unit/conftest.py", *tests):
        importlib.import_module(file.removesuffix(".py").replace("/", "."))
    gc.collect()
    gc.freeze()


def reached_from(name: str, imports: Mapping[str, AbstractSet[str]]) -> set[str]:
    """Return a module and all that import it, directly or not; `imports` are those of each."""
    reached = {name}
    while more := {each for each, imported in imports.items() if each not in reached and imported & reached}:
        reached |= more
    return reached


def imports_of(source: str) -> set[str]:
    """Return the names that a source imports from, and those that it may import from there, if they are modules."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=imported):
                names |= {each.name for each in imported}
            case ast.ImportFrom(module=str(module), names=imported):
                names |= {module, *(f"{module}.{each.name}" for each in imported)}
    return names


def attempt(name: str, path: str, code: CodeType | None, tests: Sequence[str], cpu_seconds: float) -> Outcome:
    """Run the tests, with `code` as the module `name` if it is given; what takes longer than it may is ended."""
    anew = _to_import_anew(name)
    pid = os.fork()
    if pid == 0:
        status = 70  # EX_SOFTWARE
        try:
            if code is not None:
                sys.meta_path.insert(0, _Finder(name, path, code))
            status = _run(anew, tests, cpu_seconds)
        finally:
            os._exit(status)
    _, waited, usage = os.wait4(pid, 0)
    return Outcome(status=os.waitstatus_to_exitcode(waited), cpu_seconds=usage.ru_utime + usage.ru_stime)


def _run(anew: Iterable[str], tests: Sequence[str], cpu_seconds: float) -> int:
    os.chdir(ROOT)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    limit = round(cpu_seconds + 1)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    resource.setrlimit(resource.RLIMIT_AS, (LONGEST_BYTES, LONGEST_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for loaded in anew:
        parent, _, last = loaded.rpartition(".")
        del sys.modules[loaded]
        if parent in sys.modules and hasattr(sys.modules[parent], last):
            delattr(sys.modules[parent], last)
    import pytest  # the parent has it already

    return int(pytest.main([*ARGUMENTS, *tests]))


def _to_import_anew(name: str) -> list[str]:
    ours = {each: module for each, module in sys.modules.items() if each.partition(".")[0] in OURS}
    files = {each: module.__file__ for each, module in ours.items() if module.__file__}
    imports = {each: _imports_of_file(file) for each, file in files.items() if file.endswith(".py")}
    tests = {each for each in ours if each.rpartition(".")[2].startswith(("test_", "conftest"))}
    return sorted((reached_from(name, imports) | tests) & ours.keys())


@cache
def _imports_of_file(file: str) -> frozenset[str]:
    return frozenset(imports_of(Path(file).read_text("utf-8")))
