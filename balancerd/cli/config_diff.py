"""`balancerctl config diff`: what two configurations have different, of two files or of a file and the daemon.

Owns who is compared and how it is shown. It must not know any setting; `config.differences` compares.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from balancerd.cli.exits import ExitCode
from balancerd.cli.options import SCHEMA, Settings, ask, json_option, socket_option
from balancerd.cli.screen import escape, write, write_json
from balancerd.config import loader
from balancerd.config.differences import Difference, find_differences
from balancerd.config.findings import ConfigError

RUNNING = "(running)"
"""What stands for the daemon's own configuration in the answer."""


@click.command(
    epilog="""\b
Examples:
  balancerctl config diff                                   what a reload would change
  balancerctl config diff ./new.yaml                        what the daemon would do differently with it
  balancerctl config diff /etc/balancerd/balancerd.yaml ./new.yaml
  balancerctl config diff --json ./new.yaml | jq -r .differences[].key
"""
)
@click.argument("first", type=click.Path(path_type=Path), required=False)
@click.argument("second", type=click.Path(path_type=Path), required=False)
@socket_option
@json_option
@click.pass_obj
@click.pass_context
def diff(ctx: click.Context, settings: Settings, first: Path | None, second: Path | None, *, as_json: bool) -> None:
    """Print every key that two configurations have different, and where the second sets it.

    With two files, from the FIRST to the SECOND; with one, from what the daemon runs with to that file; with none, to
    /etc/balancerd/balancerd.yaml and the fragments in conf.d. What is not set counts as its default, but for options of
    policies, which are told as written. Policies and workloads are compared by their names. Exits 5 when anything
    differs.

    In JSON: {schema, from, to, differences: [{key, before, after, in_first, in_second, at}]}.
    """
    try:
        if second is None:
            told = ask(settings, "/v1/config")
            before, shown = told["config"], RUNNING
            after, origins = _load(first)
            target = first or loader.DEFAULT_PATH
        else:
            before, _ = _load(first)
            after, origins = _load(second)
            shown, target = str(first), second
    except ConfigError as error:
        for finding in error.findings:
            write(escape(str(finding)), err=True)
        ctx.exit(ExitCode.FINDINGS)
    found = find_differences(before, after)
    if as_json:
        differences = [_as_json(each, origins) for each in found]
        write_json({"schema": SCHEMA, "from": shown, "to": str(target), "differences": differences})
    else:
        for each in found:
            at = origins.get(each.key)
            write(escape(_in_words(each) + (f"  ({at})" if at else "")))
        if not found:
            write("no differences", err=True)
    if found:
        ctx.exit(ExitCode.FINDINGS)


def _load(path: Path | None) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    # Not at the top of this module, so that the group can borrow this command before its own helpers are there.
    from balancerd.cli.config import options_by_kind  # noqa: PLC0415

    loaded = loader.load(path, plugins=options_by_kind())
    origins = {key: str(place) for key, place in loaded.origins.items()}
    return loaded.config.model_dump(mode="json", by_alias=True), origins


def _in_words(found: Difference) -> str:
    before = json.dumps(found.before, ensure_ascii=False) if found.in_first else "nothing"
    after = json.dumps(found.after, ensure_ascii=False) if found.in_second else "nothing"
    return f"{found.key}: {before} -> {after}"


def _as_json(found: Difference, origins: Mapping[str, str]) -> dict[str, object]:
    return {
        "key": found.key,
        "before": found.before,
        "after": found.after,
        "in_first": found.in_first,
        "in_second": found.in_second,
        "at": origins.get(found.key),
    }
