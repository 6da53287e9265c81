"""`balancerctl`: the group of all commands, its options, and where each command lives.

Commands are imported when used: those that only talk to the daemon must start without pydantic and its like. It must
not know what any command does.
"""

import click

from balancerd import __version__
from balancerd.cli.lazy import LazyGroup
from balancerd.cli.options import DEFAULT_SOCKET, SOCKET_VARIABLE, Settings

EPILOG = """\b
Examples:
  balancerctl status
  balancerctl nodes
  balancerctl ps --limit 10
  balancerctl plan
  balancerctl explain 4242
  balancerctl heat 4242
  balancerctl ps --json | jq '.processes[] | select(.local_ratio < 0.5) | .pid'
  balancerctl move 4242 --from 0-1 --to 2-3
  balancerctl undo 7
  balancerctl simulate crossed
  balancerctl doctor
  balancerctl config check /etc/balancerd/balancerd.yaml

\b
Exit status:
  0  done
  1  failure
  2  wrong usage
  3  the daemon is not running
  4  permission denied
  5  findings (config check, doctor, replay, simulate)
  130  interrupted (move, evict, undo: cancelled, and told how far it came; record: ended)
"""


@click.group(
    cls=LazyGroup,
    lazy={
        "status": "balancerd.cli.status:status",
        "nodes": "balancerd.cli.nodes:nodes",
        "ps": "balancerd.cli.ps:ps",
        "plan": "balancerd.cli.plan:plan",
        "explain": "balancerd.cli.explain:explain",
        "heat": "balancerd.cli.heat:heat",
        "move": "balancerd.cli.move:move",
        "evict": "balancerd.cli.evict:evict",
        "undo": "balancerd.cli.move:undo",
        "moves": "balancerd.cli.moves:moves",
        "import-log": "balancerd.cli.import_log:import_log",
        "record": "balancerd.cli.record:record",
        "replay": "balancerd.cli.replay:replay",
        "simulate": "balancerd.cli.simulate:simulate",
        "doctor": "balancerd.cli.doctor:doctor",
        "config": "balancerd.cli.config:config",
        "policies": "balancerd.cli.policies:policies",
    },
    name="balancerctl",
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="balancerctl")
@click.option(
    "--socket",
    "socket_path",
    type=click.Path(),
    envvar=SOCKET_VARIABLE,
    default=DEFAULT_SOCKET,
    show_default=True,
    show_envvar=True,
    help="Control socket of the daemon.",
)
@click.pass_context
def group(ctx: click.Context, socket_path: str) -> None:
    """See what balancerd sees, does and leaves alone, have it move memory, and check the machine and the configuration.

    Data goes to standard output, notes and errors to standard error. Every command takes --json and then prints one
    document with "schema": 1; within a schema fields are added, never renamed or removed.
    """
    ctx.obj = Settings(socket_path=socket_path)


def main() -> None:
    """Run balancerctl with this process's arguments; never returns."""
    group(prog_name="balancerctl")
