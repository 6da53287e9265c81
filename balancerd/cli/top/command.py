"""`balancerctl top`: the command, its options, and which view they mean. It must not import textual itself."""

import importlib.util
import os
import sys

import click

from balancerd.cli.exits import CommandError
from balancerd.cli.options import Settings, ask, json_option, socket_option
from balancerd.cli.screen import write_json
from balancerd.cli.top import batch
from balancerd.cli.top.feed import top_path
from balancerd.cli.top.frame import Asked
from balancerd.cli.top.rows import SORTS

INSTALL = "it needs textual: pip install 'balancerd[top]', or use --batch"


@click.command(
    short_help="Watch nodes, workloads and processes live.",
    epilog="""\b
Examples:
  balancerctl top
  balancerctl top --sort cpu --match redis
  balancerctl top --batch -n 1
  balancerctl top --batch --interval 10 >> placement.log
  balancerctl top --json | jq '.processes[] | select(.state == "held") | .pid'
""",
)
@click.option(
    "--sort",
    type=click.Choice(SORTS),
    default="remote",
    show_default=True,
    help="remote: most bytes away from where it runs first; local: smallest local share first.",
)
@click.option("--match", default="", metavar="TEXT", help="Only those with TEXT in command, pid or workload.")
@click.option("--batch", "as_batch", is_flag=True, help="Print plain text again and again.")
@click.option("-n", "--frames", type=click.IntRange(min=1), metavar="N", help="With --batch: end after N times.")
@click.option(
    "--interval",
    "interval_seconds",
    type=click.FloatRange(min=0.1, max=86400),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two times of --batch; the live view follows the daemon's ticks.",
)
@socket_option
@json_option
@click.pass_obj
def top(
    settings: Settings,
    *,
    sort: str,
    match: str,
    as_batch: bool,
    frames: int | None,
    interval_seconds: float,
    as_json: bool,
) -> None:
    """Watch the nodes with who holds their memory, and workloads and processes: placement, where they run, next move.

    Keys: s and S sort, / looks for a text, w switches between processes and workloads, Enter explains a process, p
    pauses or resumes all moves, ? tells of the rest, q ends it. MEM and RUN have a bar for each node.

    In JSON: the answer of the daemon to GET /v1/top, once.
    """
    asked = Asked(sort=sort, match=match)
    if frames is not None and not as_batch:
        raise click.BadParameter("only --batch has an end", param_hint="-n")
    if as_json:
        if as_batch:
            raise click.BadParameter("it is one document, and --batch is text", param_hint="--json")
        write_json(ask(settings, top_path("/v1/top", asked)))
    elif as_batch:
        batch.run(settings, asked, frames=frames, interval_seconds=interval_seconds)
    else:
        _run_live(settings, asked, interval_seconds)


def _run_live(settings: Settings, asked: Asked, interval_seconds: float) -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM") == "dumb":
        raise CommandError("the live view needs a terminal: use --batch")
    if importlib.util.find_spec("textual") is None:
        raise CommandError(INSTALL)
    from balancerd.cli.top.app import run  # noqa: PLC0415  # textual takes longer to import than all else

    run(settings, asked, poll_seconds=interval_seconds)
