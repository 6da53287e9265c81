"""The manual pages, shell completions and JSON schemas, from the commands and the settings themselves.

`python -m balancerd.cli.manual DIRECTORY` writes man/, completions/ and schemas/ there; deploy/ holds what it writes.
Owns what stands on the pages beside that. It must not know what any command does.
"""

import argparse
import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
from click.shell_completion import get_completion_class

from balancerd import __version__
from balancerd.cli import control, daemon, roff
from balancerd.cli.keys import Key, list_options, list_settings
from balancerd.cli.schemas import build_schema
from balancerd.cli.screen import write
from balancerd.control.openapi import build_openapi

SHELLS: Final = {"bash": "balancerctl", "zsh": "_balancerctl", "fish": "balancerctl.fish"}
"""What the file of each shell must be called to be found."""

PURPOSE: Final = {
    "balancerd": "keeps every process's memory on the NUMA node where its threads run",
    "balancerctl": "see and steer what balancerd does",
    "balancerd.yaml": "configuration of balancerd",
}

FILES: Final = (
    ("/etc/balancerd/balancerd.yaml", "The configuration, see balancerd.yaml(5). Without it the defaults hold."),
    ("/etc/balancerd/conf.d/*.yaml", "Fragments laid over it; others in /run/balancerd and /usr/lib/balancerd."),
    ("/run/balancerd/control.sock", "The control socket: for root, the daemon's user and the group in control.group."),
    ("/var/lib/balancerd", "What must outlive the daemon, see state_directory in balancerd.yaml(5)."),
)

PRIVILEGES: Final = """\
It needs two capabilities: CAP_SYS_PTRACE to see and move the pages of other users' processes, and CAP_SYS_NICE.
CAP_SYS_PTRACE is as good as root. The unit balancerd.service runs it as a user of its own with these two. Watching
accesses needs CAP_PERFMON, too. balancerctl doctor tries out what is there, and tells the exact fix."""

VALUES: Final = (
    ("duration", "2s, 500ms, 5m, 1h30m; the unit is obligatory"),
    ("byte size", "64MiB, 1GiB (1024); 100MB (1000); the unit is obligatory, only 0 goes without"),
    ("byte rate", "1GiB/s"),
    ("share", "5% or 0.05"),
    ("boolean", "true or false; on, off, yes and no are texts (YAML 1.2)"),
)


def balancerctl_page() -> str:
    """Return balancerctl(1)."""
    group = control.group
    ctx = click.Context(group, info_name="balancerctl", **group.context_settings)
    examples, exit_status = _split_epilog(group.epilog)
    commands = [
        roff.subsection(name, *_command(command, ctx)) for name, command, ctx in _commands(group, ctx, "balancerctl")
    ]
    return (
        roff.head("balancerctl", 1, __version__, PURPOSE["balancerctl"])
        + roff.section("Synopsis", "\\fBbalancerctl\\fR [\\fIOPTIONS\\fR] \\fICOMMAND\\fR [\\fIARGUMENTS\\fR]\n")
        + roff.section("Description", roff.paragraphs(_help(group)))
        + roff.section("Options", *_options(group, ctx))
        + roff.section("Commands", *commands)
        + roff.section("Exit status", *(roff.item(*line.strip().split("  ", 1)) for line in exit_status))
        + roff.section("Environment", *(roff.item(name, text) for name, text in _environment()))
        + roff.section("Examples", roff.as_written(examples))
        + roff.section("See also", "balancerd(8), balancerd.yaml(5), numactl(8), move_pages(2)\n")
    )


def balancerd_page() -> str:
    """Return balancerd(8)."""
    parser = daemon.build_parser()
    examples, *rest = (parser.epilog or "").strip().split("\n\n")
    actions = [action for action in parser._actions if action.option_strings]  # noqa: SLF001 -- argparse has no other way
    options = [roff.item(_spelled(action), (action.help or "").replace("%%", "%")) for action in actions]
    usage = " ".join(f"[{_spelled(action).split(', ')[-1]}]" for action in actions)
    return (
        roff.head("balancerd", 8, __version__, PURPOSE["balancerd"])
        + roff.section("Synopsis", f"\\fBbalancerd\\fR {roff.safe(usage)}\n")
        + roff.section("Description", roff.paragraphs(f"{parser.description}\n\n" + "\n\n".join(rest)))
        + roff.section("Options", *options)
        + roff.section("Privileges", roff.paragraphs(PRIVILEGES))
        + roff.section("Files", *(roff.item(path, text) for path, text in FILES))
        + roff.section("Examples", roff.as_written(line[2:] for line in examples.split("\n")[1:]))
        + roff.section("See also", "balancerctl(1), balancerd.yaml(5), numa(7), move_pages(2)\n")
    )


def configuration_page() -> str:
    """Return balancerd.yaml(5)."""
    kinds = [
        roff.subsection(f"kind: {kind}", roff.paragraphs(summary), *map(_key, options))
        for kind, summary, options in list_options()
    ]
    return (
        roff.head("balancerd.yaml", 5, __version__, PURPOSE["balancerd.yaml"])
        + roff.section("Synopsis", "/etc/balancerd/balancerd.yaml\n.br\n/etc/balancerd/conf.d/*.yaml\n")
        + roff.section("Description", roff.paragraphs(_CONFIGURATION))
        + roff.section("Values", *(roff.item(kind, text) for kind, text in VALUES))
        + roff.section("Settings", *map(_key, list_settings()))
        + roff.section("Policies", roff.paragraphs(_POLICIES), *kinds)
        + roff.section("See also", "balancerd(8), balancerctl(1)\n")
    )


_CONFIGURATION: Final = """\
One YAML file of nested settings. Each has a default, so a missing line, section or file changes nothing. Unknown keys,
and keys set twice, are errors with file, line and column.

\b
balancerctl config check FILE     what is wrong with a file
balancerctl config diff FILE      what the daemon would do differently with it
balancerctl reload                have it read; a bad file changes nothing
balancerd --set KEY=VALUE         lay one setting over the file
balancerctl config show --origin  which file and line each setting comes from

Fragments are laid over the file: all that end in .yaml of /usr/lib/balancerd/conf.d, /run/balancerd/conf.d and
/etc/balancerd/conf.d, in the order of their names. One of the same name in a later directory takes the place of one in
an earlier directory, and an empty one, or a link to /dev/null, switches it off. Mappings merge and lists replace, but
entries of policies and workloads merge by their names: an entry of a name that is there already changes it, one of
another kind replaces it, and a new one goes before the entry that is written next, or to the end. --config FILE reads
that file alone."""

_POLICIES: Final = """\
Every entry of policies has name, kind, mode and match; beside these, the options of its kind. Kinds of other packages
are listed by balancerctl policies list."""


def completion(shell: str) -> str:
    """Return the completion script of a shell."""
    made = get_completion_class(shell)
    if made is None:
        raise LookupError(shell)
    script = made(control.group, {}, "balancerctl", "_BALANCERCTL_COMPLETE").source()
    return "\n".join(line.rstrip() for line in script.strip().split("\n")) + "\n"


def documents() -> dict[str, str]:
    """Return everything by its path below the directory."""
    return {
        "man/balancerctl.1": balancerctl_page(),
        "man/balancerd.8": balancerd_page(),
        "man/balancerd.yaml.5": configuration_page(),
        "schemas/balancerctl.schema.json": json.dumps(build_schema(), indent=2) + "\n",
        "schemas/control-api.openapi.json": json.dumps(build_openapi(), indent=2) + "\n",
        **{f"completions/{shell}/{name}": completion(shell) for shell, name in SHELLS.items()},
    }


def _commands(group: click.Group, ctx: click.Context, path: str) -> Iterator[tuple[str, click.Command, click.Context]]:
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if command is None:
            raise LookupError(name)
        own = click.Context(command, parent=ctx, info_name=name)
        if isinstance(command, click.Group):
            yield from _commands(command, own, f"{path} {name}")
        else:
            yield f"{path} {name}", command, own


def _command(command: click.Command, ctx: click.Context) -> Iterator[str]:
    usage = " ".join(command.collect_usage_pieces(ctx))
    yield f"\\fB{roff.safe(ctx.command_path)}\\fR {roff.safe(usage)}\n"
    yield roff.paragraphs(_help(command))
    yield from _options(command, ctx)
    examples, _ = _split_epilog(command.epilog)
    if examples:
        yield ".PP\nExamples:\n" + roff.as_written(f"  {line}" for line in examples)


def _options(command: click.Command, ctx: click.Context) -> Iterator[str]:
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None and record[1]:
            yield roff.item(*record)


def _help(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "")


def _split_epilog(epilog: str | None) -> tuple[list[str], list[str]]:
    """Return the lines of the examples, and those of the second part if there is one, without their titles."""
    parts = [part.strip("\n").split("\n") for part in (epilog or "").split("\b\n") if part.strip()]
    bare = [[line.removeprefix("  ") for line in lines[1:]] for lines in parts]
    return (bare[0] if bare else []), (bare[1] if len(bare) > 1 else [])


def _environment() -> tuple[tuple[str, str], ...]:
    return (
        ("BALANCERD_SOCKET", "The control socket, where --socket does not name another one."),
        ("NO_COLOR", "When it is set, nothing is coloured or drawn."),
    )


def _spelled(action: argparse.Action) -> str:
    value = f" {action.metavar}" if action.metavar else ""
    return ", ".join(f"{option}{value}" for option in action.option_strings)


def _key(key: Key) -> str:
    default = "" if key.default is None else f" Default: {key.default}."
    return roff.item(key.path, f"{key.meaning}{default}{' Required.' if key.required else ''}")


def main(arguments: list[str]) -> int:
    """Write everything below the directory that is named; return the exit status."""
    if len(arguments) != 1:
        write("usage: python -m balancerd.cli.manual DIRECTORY", err=True)
        return 2
    for name, text in documents().items():
        path = Path(arguments[0]) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
