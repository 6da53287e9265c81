"""`balancerctl policies`: which kinds of policy are installed. Needs no daemon; it must not know any of them."""

import difflib
import inspect
import json
from collections.abc import Mapping
from typing import Any

import click

from balancerd import plugins
from balancerd.cli.exits import CommandError
from balancerd.cli.options import json_option
from balancerd.cli.screen import Column, Table, draw, escape, write, write_json
from balancerd.ports import PolicyPlugin


@click.group(
    name="policies",
    epilog="""\b
Examples:
  balancerctl policies list
  balancerctl policies show follow-cpu
""",
)
def policies() -> None:
    """See which kinds of policy can be named in the configuration."""


@policies.command(
    name="list",
    epilog="""\b
Examples:
  balancerctl policies list
  balancerctl policies list --json | jq -r .policies[].kind
""",
)
@json_option
def list_(*, as_json: bool) -> None:
    """List the installed kinds of policy: those of balancerd, and those of other installed packages.

    In JSON, "options_schema" is the JSON schema of the options that the kind takes beside name and kind.
    """
    found = _discover()
    if as_json:
        write_json({"schema": 1, "policies": [_as_json(kind, plugin) for kind, plugin in sorted(found.items())]})
        return
    columns = (Column(title="KIND"), Column(title="MODULE"), Column(title="SUMMARY", cut=True))
    rows = [(kind, plugin.options.__module__, plugin.summary) for kind, plugin in sorted(found.items())]
    draw(Table(columns=columns, rows=rows))


@policies.command(
    epilog="""\b
Examples:
  balancerctl policies show follow-cpu
  balancerctl policies show tiering --json | jq '.policy.options_schema.properties | keys'
"""
)
@click.argument("kind")
@json_option
def show(kind: str, *, as_json: bool) -> None:
    """Show what a KIND of policy does, and its options: what each is for, and what it is unless set.

    In JSON: {schema, policy}, with the policy as in the list, and "description".
    """
    found = _discover()
    plugin = found.get(kind)
    if plugin is None:
        close = difflib.get_close_matches(kind, found, n=1)
        hint = f"did you mean {close[0]}?" if close else f"installed: {', '.join(sorted(found))}"
        raise click.UsageError(f"There is no kind of policy {escape(kind)} ({hint}).")
    told = _as_json(kind, plugin)
    description = inspect.getdoc(inspect.getmodule(plugin.options)) or ""
    if as_json:
        write_json({"schema": 1, "policy": {**told, "description": description}})
        return
    write(escape(f"{kind}: {plugin.summary}"))
    for line in description.splitlines():
        write(escape(f"  {line}".rstrip()))
    write()
    options = told["options_schema"].get("properties", {})
    required = told["options_schema"].get("required", ())
    if not options:
        write("It has no options beside name, kind, mode and match.")
        return
    columns = (Column(title="OPTION"), Column(title="DEFAULT"), Column(title="MEANING", cut=True))
    draw(
        Table(
            columns=columns,
            rows=[
                (
                    option,
                    "(required)" if option in required else json.dumps(facts.get("default"), ensure_ascii=False),
                    facts.get("description", ""),
                )
                for option, facts in options.items()
            ],
        )
    )
    write()
    write("In the configuration, with these defaults:")
    write(f"  policies:\n    - name: {escape(kind)}\n      kind: {escape(kind)}")


def _discover() -> Mapping[str, PolicyPlugin[Any]]:
    try:
        return plugins.discover()
    except plugins.PluginError as error:
        raise CommandError(escape(str(error))) from error


def _as_json(kind: str, plugin: PolicyPlugin[Any]) -> dict[str, Any]:
    return {
        "kind": kind,
        "summary": plugin.summary,
        "module": plugin.options.__module__,
        "options_schema": plugin.options.model_json_schema(by_alias=True, mode="serialization"),
    }
