"""Runs the lab's tests: one boot and one pytest process inside for each machine, then the tests of the lab itself.

A machine is a topology and a kernel.  Owns two rules.  A topology or a kernel without a test that ran, like a machine
that does not boot, is a failure, never a skip.  Tests that fail, when they are few, run once more in a fresh boot; one
that passes there is named as unsteady at the end, for somebody to mend: on a shared, emulated machine the guest's own
daemons (ksmd, kcompactd, khugepaged) now and then hold what a test looks at, and one of many tests meets them.
"""

import contextlib
import io
import itertools
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.lab import kernel, topology
from tests.lab.conftest import is_host_test, kernels_of, topologies_of
from tests.lab.machine import Machine, Options, machine_name
from tests.lab.state import REPOSITORY, LabDirectory, LabError
from tests.lab.stillness import answer_requests

TESTS = "tests/lab"
SUITE_SECONDS = 1800.0  # for all tests of one machine; each has pytest-timeout's own limit besides
GUEST_JUNIT = "/run/lab/out/junit.xml"
# Inside, hypothesis and its kin cost 6 s of imports, nothing may run beside a test, and the order is the file's.
PLUGINS = ("-p", "pytest_timeout", "-p", "no:cacheprovider", "--durations=20", "--durations-min=5")
NO_OTHER_PLUGINS = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}

INSIDE_PARTS = ("default", "others")
PARTS = (*INSIDE_PARTS, "host")
"""The machine with most tests, all other machines, and the tests of the lab itself."""

FEW_FAILURES = 3  # more than that is no chance meeting

Where = tuple[str, str]  # a topology's name and a kernel's series


@dataclass(slots=True)
class Survey:
    """A pytest plugin that counts the selected tests by topology and kernel."""

    inside: Counter[Where] = field(default_factory=Counter)
    host: int = 0

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Called by pytest once the selection stands."""
        for item in session.items:
            if is_host_test(item):
                self.host += 1
            else:
                self.inside.update(itertools.product(topologies_of(item), kernels_of(item)))


def run_tests(
    lab: LabDirectory, only: str | None, series: str | None, arguments: Sequence[str], part: str | None = None
) -> int:
    """Run the tests that pytest's `arguments` select, all of them if empty; returns the worst exit status.

    With `only`, a topology, or `series`, a kernel, run just their tests inside, and not those of the lab itself. With
    `part`, one of PARTS, run just that part, in a place of its own: two parts may run at the same time.
    """
    if part in INSIDE_PARTS:
        lab = lab.beside(part)
    os.chdir(REPOSITORY)
    os.environ.update(NO_OTHER_PLUGINS)
    selection = list(arguments)
    if not any(Path(word.partition("::")[0]).exists() for word in selection):
        selection.append(TESTS)
    survey, status = _survey(selection)
    if status:
        return status
    selected = [
        where
        for where in survey.inside
        if only in {None, where[0]} and series in {None, where[1]} and part in {None, part_of(where)}
    ]
    wanted = sorted(selected, key=lambda where: (kernel.SERIES.index(where[1]), where[0]))
    worst = 0
    summary = []
    for where in wanted:
        status, line = _run_inside(lab, where, selection)
        worst = max(worst, status)
        summary.append(line)
    is_everything = not [word for word in arguments if word != "--thorough"]
    for name in missing(wanted, only, series, is_everything=is_everything, part=part):
        worst = max(worst, 1)
        summary.append(f"lab: {name}: FAILED, no test for it was selected")
    if only is None and series is None and part in {None, "host"} and (survey.host or is_everything):
        worst = max(worst, _run_on_host(lab, selection))
    for line in summary:
        print(line, flush=True)
    if not wanted and not survey.host and not summary:
        print("lab: error: no test was selected", file=sys.stderr)
        return 1
    return worst


def part_of(where: Where) -> str:
    """The part that a machine belongs to."""
    return "default" if where == (topology.DEFAULT, kernel.DEFAULT) else "others"


def missing(
    wanted: Sequence[Where], only: str | None, series: str | None, *, is_everything: bool, part: str | None = None
) -> list[str]:
    """The topologies and kernels without a test in `wanted`, of those asked for by name or as part of everything."""
    is_everything = is_everything and only is None and series is None and part != "host"
    topologies: Sequence[str | None] = (only,)
    kernels: Sequence[str | None] = (series,)
    if is_everything:
        topologies, kernels = topology.names(), kernel.SERIES
        if part == "default":
            topologies, kernels = (topology.DEFAULT,), (kernel.DEFAULT,)
    covered = {None, *itertools.chain.from_iterable(wanted)}
    return [name for name in (*topologies, *kernels) if name is not None and name not in covered]


def _survey(selection: list[str]) -> tuple[Survey, int]:
    survey, text = Survey(), io.StringIO()
    with contextlib.redirect_stdout(text):
        status = pytest.main(["--collect-only", "-q", *PLUGINS, *selection], plugins=[survey])
    if status not in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
        print(text.getvalue())
        return survey, int(status)
    return survey, 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BootOutcome:
    """What one boot's tests came to: pytest's exit status, how many ran, which failed, and the boot's seconds."""

    status: int
    n_ran: int
    failed: tuple[str, ...]
    boot_seconds: float


def _run_inside(lab: LabDirectory, where: Where, selection: list[str]) -> tuple[int, str]:
    name = machine_name(*where)
    started = time.monotonic()
    unsteady: tuple[str, ...] = ()
    try:
        outcome = _run_in_boot(lab, where, selection, _junit(lab, name))
        status = outcome.status
        if status == pytest.ExitCode.TESTS_FAILED and 0 < len(outcome.failed) <= FEW_FAILURES:
            print(f"lab: {name}: {len(outcome.failed)} failed, once more in a fresh boot", flush=True)
            again = _run_in_boot(lab, where, list(outcome.failed), _junit(lab, f"{name}-again"))
            status = again.status
            unsteady = tuple(sorted(set(outcome.failed) - set(again.failed))) if again.n_ran else ()
    except LabError as error:
        print(f"lab: error: {error}", file=sys.stderr)
        return 1, f"lab: {name}: FAILED, the machine: {str(error).partition(chr(10))[0]}"
    word = f"FAILED with status {status}" if status else "passed"
    seconds = time.monotonic() - started
    line = f"lab: {name}: {word}, {outcome.n_ran} tests ran, {seconds:.1f} s (boot {outcome.boot_seconds:.1f} s)"
    return status, "\n".join([line, *(f"lab: {name}: UNSTEADY, passed in a second boot only: {it}" for it in unsteady)])


def _run_in_boot(lab: LabDirectory, where: Where, selection: list[str], junit: Path) -> BootOutcome:
    print(f"lab: {machine_name(*where)}: booting", flush=True)
    color = "--color=yes" if sys.stdout.isatty() else "--color=no"
    command = [sys.executable, "-m", "pytest", *selection, *PLUGINS, color, f"--junitxml={GUEST_JUNIT}"]
    options = Options(kernel=where[1])
    with Machine(topology.load(where[0]), lab=lab, options=options) as machine, answer_requests(machine):
        ended = machine.run(command, env=NO_OTHER_PLUGINS, timeout_seconds=SUITE_SECONDS, on_output=_pass_on)
        if (machine.out / "junit.xml").exists():
            shutil.copy(machine.out / "junit.xml", junit)
        boot_seconds = machine.boot_seconds
    n_ran = executed_tests(junit)
    return BootOutcome(
        status=ended.exit_status or (0 if n_ran else 1),
        n_ran=n_ran,
        failed=failed_tests(junit),
        boot_seconds=boot_seconds,
    )


def _run_on_host(lab: LabDirectory, selection: list[str]) -> int:
    print("lab: the tests of the lab itself", flush=True)
    command = [sys.executable, "-m", "pytest", *selection, *PLUGINS, "-m", "host", f"--junitxml={_junit(lab, 'host')}"]
    return subprocess.run(command, check=False).returncode


def _junit(lab: LabDirectory, name: str) -> Path:
    path = lab.root / "junit" / f"{name}.xml"
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    return path


def executed_tests(junit: Path) -> int:
    """Tests in a JUnit file that were not skipped; 0 if there is no file."""
    if not junit.exists():
        return 0
    suites = ET.parse(junit).iter("testsuite")  # noqa: S314 - pytest wrote it for us
    return sum(int(suite.attrib["tests"]) - int(suite.attrib["skipped"]) for suite in suites)


def failed_tests(junit: Path) -> tuple[str, ...]:
    """The node ids of the tests that failed or had an error in a JUnit file; none if there is no file."""
    if not junit.exists():
        return ()
    cases = ET.parse(junit).iter("testcase")  # noqa: S314 - pytest wrote it for us
    bad = [case.attrib for case in cases if case.find("failure") is not None or case.find("error") is not None]
    return tuple(dict.fromkeys(f"{case['classname'].replace('.', '/')}.py::{case['name']}" for case in bad))


def _pass_on(_stream: int, data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
