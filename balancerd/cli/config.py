"""`balancerctl config`: check a configuration file, show what is in effect, print the schema. Needs no daemon.

Owns how findings reach the terminal and the exit code. It must not know any setting; the config room words them all.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import yaml

from balancerd import plugins, stack
from balancerd.cli.config_diff import diff
from balancerd.cli.exits import CommandError, ExitCode
from balancerd.cli.options import json_option
from balancerd.cli.screen import escape, write, write_json
from balancerd.config import json_schema, loader
from balancerd.config.findings import ConfigError, Finding, in_reading_order

_set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Lay a setting over the file, as balancerd --set does.",
)
_file_argument = click.argument("file", type=click.Path(path_type=Path), required=False)


@click.group(
    name="config",
    epilog="""\b
Examples:
  balancerctl config check ./balancerd.yaml
  balancerctl config show --origin
  balancerctl config diff ./new.yaml
""",
)
def config() -> None:
    """Check, show, compare and describe the configuration."""


config.add_command(diff)


@config.command(
    epilog="""\b
Examples:
  balancerctl config check
  balancerctl config check ./balancerd.yaml --set tick_interval=1s
  balancerctl config check --json ./balancerd.yaml | jq -r '.findings[].message'
"""
)
@_file_argument
@_set_option
@json_option
@click.pass_context
def check(ctx: click.Context, file: Path | None, overrides: tuple[str, ...], *, as_json: bool) -> None:
    """Print everything wrong with FILE as "file:line:column: severity: message".

    Without FILE it is what the daemon reads: /etc/balancerd/balancerd.yaml and the fragments in conf.d. Exits 5 when
    there is any finding, be it an error or a warning: an error keeps the daemon from using the file, a warning does
    not.

    In JSON: {schema, path, findings: [{path, line, column, severity, message}]}.
    """
    found = loader.check(file, overrides=overrides, plugins=options_by_kind())
    if all(each.severity == "warning" for each in found):
        loaded = loader.load(file, overrides=overrides, plugins=options_by_kind())
        installed = plugins.discover()
        more = (*stack.find_missing_nodes(loaded, installed), *stack.advise_on_options(loaded, installed))
        found = list(in_reading_order((*found, *more)))
    shown = str(file or loader.DEFAULT_PATH)
    if as_json:
        write_json({"schema": 1, "path": shown, "findings": [_as_json(each) for each in found]})
    else:
        for each in found:
            write(escape(str(each)))
        if not found:
            write(f"{escape(shown)}: no findings", err=True)
    if found:
        ctx.exit(ExitCode.FINDINGS)


@config.command(
    epilog="""\b
Examples:
  balancerctl config show
  balancerctl config show --origin ./balancerd.yaml
"""
)
@_file_argument
@_set_option
@click.option("--origin", is_flag=True, help="List every key that was set, and where; what is missing is a default.")
@json_option
@click.pass_context
def show(ctx: click.Context, file: Path | None, overrides: tuple[str, ...], *, origin: bool, as_json: bool) -> None:
    """Print the configuration that FILE gives, every default written out, as YAML.

    Without FILE it is what the daemon reads: /etc/balancerd/balancerd.yaml and the fragments in conf.d. With an error
    in it, prints the findings to standard error and exits 5.

    In JSON: {schema, path, config, origins: {key: "FILE:LINE:COLUMN" of what was set}}.
    """
    try:
        loaded = loader.load(file, overrides=overrides, plugins=options_by_kind())
    except ConfigError as error:
        _complain(error.findings)
        ctx.exit(ExitCode.FINDINGS)
    _complain(loaded.findings)
    effective = loaded.config.model_dump(mode="json", by_alias=True)
    origins = {key: str(place) for key, place in loaded.origins.items()}
    if as_json:
        write_json({"schema": 1, "path": str(file or loader.DEFAULT_PATH), "config": effective, "origins": origins})
    elif origin:
        for key, place in origins.items():
            write(escape(f"{place}: {key}"))
    else:
        write(yaml.safe_dump(effective, sort_keys=False).rstrip("\n"))


@config.command(
    epilog="""\b
Examples:
  balancerctl config schema > balancerd.schema.json
"""
)
@json_option
def schema(*, as_json: bool) -> None:
    """Print the JSON schema of the configuration file, for editors.

    With --json it stands under the key "json_schema" of a document like those of the other commands.
    """
    if as_json:
        write_json({"schema": 1, "json_schema": json_schema.build_json_schema()})
    else:
        write(json_schema.render_json_schema().rstrip("\n"))


def options_by_kind() -> dict[str, Any]:
    """Return the options model of each installed kind of policy. Raises CommandError."""
    try:
        return {kind: plugin.options for kind, plugin in plugins.discover().items()}
    except plugins.PluginError as error:
        raise CommandError(escape(str(error))) from error


def _complain(findings: Sequence[Finding]) -> None:
    for each in findings:
        write(escape(str(each)), err=True)


def _as_json(finding: Finding) -> dict[str, object]:
    return {
        "path": finding.path,
        "line": finding.line,
        "column": finding.column,
        "severity": finding.severity,
        "message": finding.message,
    }
