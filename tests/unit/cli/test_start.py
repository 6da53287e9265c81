"""What starting a command imports: those that only ask the daemon must be light."""

import subprocess
import sys
from pathlib import Path

import click
import pytest

from balancerd.cli.lazy import LazyGroup
from tests.unit.cli.conftest import Serve
from tests.unit.cli.documents import answers

HEAVY = ("pydantic", "prometheus_client", "cheroot", "cffi", "psutil", "yaml", "structlog", "rich", "textual")

RUN = """
import sys
from balancerd.cli.control import main
try:
    main()
except SystemExit as end:
    loaded = [name for name in {heavy!r} if name in sys.modules]
    print("LOADED", *loaded, file=sys.stderr)
    raise
"""


def loaded_by(*arguments: str) -> tuple[int, set[str]]:
    """Run balancerctl in a process of its own; its exit code, and which heavy packages it imported."""
    code = RUN.format(heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    told = [line for line in done.stderr.splitlines() if line.startswith("LOADED")]
    assert len(told) == 1, done.stderr
    return done.returncode, set(told[0].split()[1:])


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
        ["--version"],
    ],
)
def test_asking_the_daemon_imports_nothing_heavy(serve: Serve, command: list[str]) -> None:
    assert loaded_by("--socket", serve(answers()), *command) == (0, set())


def test_asking_a_daemon_that_is_not_there_imports_nothing_heavy(tmp_path: Path) -> None:
    assert loaded_by("--socket", str(tmp_path / "nobody"), "status") == (3, set())


def test_a_command_that_needs_the_configuration_does_import_it(tmp_path: Path) -> None:
    code, loaded = loaded_by("config", "check", str(tmp_path / "none.yaml"))
    assert code == 5
    assert {"pydantic", "yaml"} <= loaded
    assert not {"cheroot", "rich", "prometheus_client"} & loaded


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], []])
def test_the_list_of_commands_imports_none_of_them(arguments: list[str]) -> None:
    assert loaded_by(*arguments) == (0 if arguments else 2, set())


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
    assert loaded_by("--socket", str(tmp_path / "nobody"), *command) == (3, set())


def test_advice_without_a_daemon_imports_nothing_heavy(tmp_path: Path) -> None:
    assert loaded_by("--socket", str(tmp_path / "nobody"), "advise", "--numad", "1:1") == (0, set())
