"""`balancerctl policies`: which kinds of policy are installed. Needs no daemon; it must not know any of them."""

import click

from balancerd import plugins
from balancerd.cli.exits import CommandError
from balancerd.cli.options import json_option
from balancerd.cli.screen import Column, Table, draw, escape, write_json


@click.group(name="policies")
def policies() -> None:
    """See which kinds of policy can be named in the configuration."""


@policies.command(name="list")
@json_option
def list_(*, as_json: bool) -> None:
    """List the installed kinds of policy: those of balancerd, and those of other installed packages.

    In JSON, "options_schema" is the JSON schema of the options that the kind takes beside name and kind.
    """
    try:
        found = plugins.discover()
    except plugins.PluginError as error:
        raise CommandError(escape(str(error))) from error
    if as_json:
        listed = [
            {
                "kind": kind,
                "summary": plugin.summary,
                "module": plugin.options.__module__,
                "options_schema": plugin.options.model_json_schema(by_alias=True, mode="serialization"),
            }
            for kind, plugin in sorted(found.items())
        ]
        write_json({"schema": 1, "policies": listed})
        return
    columns = (Column(title="KIND"), Column(title="MODULE"), Column(title="SUMMARY", cut=True))
    rows = [(kind, plugin.options.__module__, plugin.summary) for kind, plugin in sorted(found.items())]
    draw(Table(columns=columns, rows=rows))
