"""What starting a command imports: those that only ask the daemon must be light."""

import subprocess
import sys
from pathlib import Path

import click
import pytest

from balancerd.cli.lazy import LazyGroup
from tests.unit.cli.conftest import Serve
from tests.unit.cli.documents import answers

LIGHT = {
    "balancerd.config",
    "balancerd.config.units",
    "balancerd.control",
    "balancerd.control.client",
    "balancerd.model",
    "balancerd.model.decision",
    "balancerd.model.extent",
    "balancerd.model.ids",
    "balancerd.model.page_status",
    "balancerd.model.placement_method",
    "balancerd.model.printable",
    "balancerd.model.states",
}
"""What whoever asks the daemon may import of balancerd, beside its commands."""

SAMPLES = {
    "balancerd.model.access",
    "balancerd.model.copying",
    "balancerd.model.heat",
    "balancerd.model.interval",
    "balancerd.model.machine",
    "balancerd.model.manager",
    "balancerd.model.sample",
    "balancerd.model.topology",
    "balancerd.model.workload",
}
"""What the size of a page stands beside."""

MORE = {
    "history": {"balancerd.history", "balancerd.history.reader", "balancerd.history.schema", "balancerd.model.event"},
    "nodes": SAMPLES,
    "status": {"balancerd.model.health", "balancerd.model.manager"},
    "undo": SAMPLES,
}
"""What single commands may import, too."""

RUN = """
import sys
from_the_start = set(sys.modules)
from balancerd.cli.control import main
try:
    main()
except SystemExit as end:
    print("LOADED", *set(sys.modules) - from_the_start, file=sys.stderr)
    raise
"""


def imported_by(*arguments: str) -> tuple[int, set[str], set[str]]:
    """Run balancerctl in a process of its own; return its exit code, and what it imported.

    That is packages of others, beside click, by their names, and modules of balancerd that are no commands.
    """
    done = subprocess.run([sys.executable, "-c", RUN, *arguments], capture_output=True, text=True, check=False)
    told = [line for line in done.stderr.splitlines() if line.startswith("LOADED")]
    assert len(told) == 1, done.stderr
    names = set(told[0].split()[1:])
    assert "click" in names
    others = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"balancerd", "click"}
    ours = {name for name in names if name.startswith("balancerd.") and not name.startswith("balancerd.cli")}
    return done.returncode, others, ours


def loaded_by(*arguments: str) -> tuple[int, set[str]]:
    """Run it likewise; return its exit code, and the packages of others."""
    return imported_by(*arguments)[:2]


@pytest.mark.parametrize(
    "command",
    [
        ["history"],
        ["history", "--csv"],
        ["status"],
        ["ps"],
        ["explain", "4242"],
        ["ps", "--json"],
        ["moves"],
        ["nodes"],
        ["heat", "4242"],
    ],
)
def test_asking_the_daemon_imports_nothing_heavy(serve: Serve, command: list[str]) -> None:
    code, others, ours = imported_by("--socket", serve(answers()), *command)
    assert (code, others, ours - LIGHT - MORE.get(command[0], set())) == (0, set(), set())


def test_asking_a_daemon_that_is_not_there_imports_nothing_heavy(tmp_path: Path) -> None:
    code, others, ours = imported_by("--socket", str(tmp_path / "nobody"), "status")
    assert (code, others, ours - LIGHT - MORE["status"]) == (3, set(), set())


def test_a_command_that_needs_the_configuration_does_import_it(tmp_path: Path) -> None:
    code, loaded = loaded_by("config", "check", str(tmp_path / "none.yaml"))
    assert code == 5
    assert {"pydantic", "yaml"} <= loaded
    assert not {"cheroot", "rich", "prometheus_client"} & loaded


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"], []])
def test_the_list_of_commands_imports_none_of_them(arguments: list[str]) -> None:
    code, others, ours = imported_by(*arguments)
    assert (code, others) == (0 if arguments else 2, set())
    files = {"balancerd.config", "balancerd.config.custody", "balancerd.kernel", "balancerd.kernel.whole_file"}
    assert ours <= {"balancerd.model", "balancerd.model.printable", *files}


def test_what_the_list_says_of_a_command_is_what_the_command_says() -> None:
    from balancerd.cli.control import group

    assert isinstance(group, LazyGroup)
    ctx = click.Context(group)
    for name, (_, text) in group._lazy.items():
        command = group.get_command(ctx, name)
        assert command is not None
        assert (command.name, command.get_short_help_str(100)) == (name, text)


@pytest.mark.parametrize("command", [["pause"], ["resume"], ["mode"], ["reload"], ["advise", "--list"], ["undo", "1"]])
def test_switching_imports_nothing_heavy(tmp_path: Path, command: list[str]) -> None:
    code, others, ours = imported_by("--socket", str(tmp_path / "nobody"), *command)
    assert (code, others, ours - LIGHT - MORE.get(command[0], set())) == (3, set(), set())


def test_what_the_doctor_says_of_itself_imports_none_of_its_probes() -> None:
    code, others, ours = imported_by("doctor", "--help")
    record = {
        "balancerd.kernel",
        "balancerd.kernel.doctor",
        "balancerd.kernel.doctor.files",
        "balancerd.model.manager",
    }
    assert (code, others, ours - LIGHT - record) == (0, set(), set())


def test_the_service_is_installed_without_anything_heavy(tmp_path: Path) -> None:
    code, others, ours = imported_by("service", "install", "--dry-run", "--root", str(tmp_path))
    assert (code, {name for name in others if not name.startswith("_sysconfigdata")}) == (0, set())
    files = {"balancerd.config", "balancerd.config.custody", "balancerd.kernel", "balancerd.kernel.whole_file"}
    assert ours <= {"balancerd.model", "balancerd.model.printable", *files}


def test_advice_without_a_daemon_imports_nothing_heavy(tmp_path: Path) -> None:
    assert loaded_by("--socket", str(tmp_path / "nobody"), "advise", "--numad", "1:1") == (0, set())
