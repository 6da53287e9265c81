"""The shipped manual pages and completions are the generated ones, and work."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from balancerd.cli import manual, roff
from balancerd.cli.control import group
from balancerd.config.json_schema import build_json_schema

DEPLOY = Path(__file__).parents[3] / "deploy"
PAGES = sorted(name for name in manual.documents() if name.startswith("man/"))


def every_command(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        ctx = click.Context(command, info_name=path[-1] if path else "balancerctl")
        for name in command.list_commands(ctx):
            found = command.get_command(ctx, name)
            assert found is not None
            yield from every_command(found, (*path, name))


COMMANDS = dict(every_command(group))
LEAVES = [path for path, command in COMMANDS.items() if not isinstance(command, click.Group)]


@pytest.mark.parametrize("name", sorted(manual.documents()))
def test_what_is_shipped_is_what_is_generated(name: str) -> None:
    assert (DEPLOY / name).read_text(encoding="utf-8") == manual.documents()[name], (
        "write it anew: .venv/bin/python -m balancerd.cli.manual deploy"
    )


def test_nothing_else_is_shipped_there() -> None:
    found = {
        str(p.relative_to(DEPLOY))
        for d in ("man", "completions", "schemas")
        for p in (DEPLOY / d).rglob("*")
        if p.is_file()
    }
    assert found == set(manual.documents())


@pytest.mark.skipif(shutil.which("man") is None, reason="man is not installed")
@pytest.mark.parametrize("name", PAGES)
def test_man_has_nothing_to_say_of_a_page(name: str) -> None:
    arguments = ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(DEPLOY / name)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", PAGES)
def test_mandoc_finds_no_fault_with_a_page(name: str) -> None:
    done = subprocess.run(
        ["mandoc", "-Tlint", "-Werror", str(DEPLOY / name)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_a_help_with_examples(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    assert command.help
    examples, _ = manual._split_epilog(command.epilog)
    assert examples, path
    assert "\nExamples:\n" in (command.epilog or "")
    name = " ".join(("balancerctl", *path))
    assert any(name in line for line in examples), f"no example of {name} among its own"


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_takes_json_and_says_what_that_is(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    assert any("--json" in parameter.opts for parameter in command.params), path
    assert "json" in (command.help or "").lower(), path


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_option_is_explained_on_the_page(path: tuple[str, ...]) -> None:
    page = manual.balancerctl_page()
    assert f".SS {roff.safe(' '.join(('balancerctl', *path)))}\n" in page
    for parameter in COMMANDS[path].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, (path, parameter.name)


def test_every_setting_is_on_the_page() -> None:
    page = manual.configuration_page()
    schema = build_json_schema()
    sections = schema["$defs"]
    assert isinstance(schema["properties"], dict)
    assert isinstance(sections, dict)
    for key in schema["properties"]:
        assert f"\\fB{roff.safe(key)}\\fR\n" in page
    for key in sections["SelectConfig"]["properties"]:
        assert f"\\fBselect.{roff.safe(key)}\\fR\n" in page


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("plain", "plain"),
        (".SH not a request", "\\&.SH not a request"),
        ("a\n.b", "a\n\\&.b"),
        ("'quoted'", "\\(aqquoted\\(aq"),
        ("C:\\temp --all", "C:\\etemp \\-\\-all"),
    ],
)
def test_text_never_becomes_a_request(text: str, told: str) -> None:
    assert roff.safe(text) == told


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("balancerctl res", {"resume"}),
        ("balancerctl re", {"resume", "reload", "record", "replay"}),
        ("balancerctl config d", {"diff"}),
        ("balancerctl mode ", {"enforce", "observe"}),
        ("balancerctl advise --num", {"--numad", "--numactl"}),
    ],
)
def test_bash_completes(tmp_path: Path, line: str, offered: set[str]) -> None:
    (tmp_path / "balancerctl").symlink_to(Path(sys.executable).parent / "balancerctl")
    words = line.split(" ")
    script = (
        f'source "{DEPLOY}/completions/bash/balancerctl"\n'
        f"COMP_WORDS=({' '.join(word or repr('') for word in words)}) COMP_CWORD={len(words) - 1}\n"
        "_balancerctl_completion balancerctl\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, env=env)
    assert set(done.stdout.split()) == offered
