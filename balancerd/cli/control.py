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
  balancerctl top
  balancerctl nodes
  balancerctl ps --limit 10
  balancerctl plan
  balancerctl explain 4242
  balancerctl heat 4242
  balancerctl ps --json | jq '.processes[] | select(.local_ratio < 0.5) | .pid'
  balancerctl move 4242 --from 0-1 --to 2-3
  balancerctl undo 7
  balancerctl undo --since 10m
  balancerctl pause --for 30m
  balancerctl advise 4:8192
  balancerctl history --since -2h
  balancerctl simulate crossed
  balancerctl doctor
  balancerctl config check /etc/balancerd/balancerd.yaml
  balancerctl service install --dry-run

\b
Exit status:
  0  done
  1  failure
  2  wrong usage
  3  the daemon is not running
  4  permission denied
  5  findings (advise, config, doctor, reload, replay, service, simulate)
  130  interrupted (move, evict, undo: cancelled, and told how far it came; record: ended)
"""


@click.group(
    cls=LazyGroup,
    lazy={
        "status": ("balancerd.cli.status:status", "Show whether the daemon works, and what it has done."),
        "top": ("balancerd.cli.top.command:top", "Watch nodes, workloads and processes live."),
        "nodes": ("balancerd.cli.nodes:nodes", "Show the nodes: CPUs, memory, load, speed, distances, devices."),
        "ps": ("balancerd.cli.ps:ps", "List processes or workloads: where their memory is and where they run."),
        "plan": ("balancerd.cli.plan:plan", "Show what would be moved now; moves nothing."),
        "explain": ("balancerd.cli.explain:explain", "Tell the story of one process, and what happens next."),
        "heat": ("balancerd.cli.heat:heat", "Draw the address space of one process: node, heat, who uses it."),
        "move": ("balancerd.cli.move:move", "Move a process's memory to other nodes, now."),
        "evict": ("balancerd.cli.evict:evict", "Give a process's memory back to swap and files, now."),
        "undo": ("balancerd.cli.undo:undo", "Put back what a move moved, or all moves since a while ago."),
        "moves": ("balancerd.cli.moves:moves", "List the latest moves, of policies and commands."),
        "pause": ("balancerd.cli.switches:pause", "Stop everything that moves, now."),
        "resume": ("balancerd.cli.switches:resume", "End a pause."),
        "mode": ("balancerd.cli.switches:mode", "Show the mode, or change it while the daemon runs."),
        "reload": ("balancerd.cli.switches:reload", "Have the daemon read its configuration again."),
        "advise": ("balancerd.cli.advise:advise", "Advise where to place something new, as numad -w does."),
        "history": ("balancerd.cli.history:history", "Show what was decided and done, and what it came to."),
        "import-log": (
            "balancerd.cli.import_log:import_log",
            "Have memory moved by what perf recorded of its accesses.",
        ),
        "record": ("balancerd.cli.record:record", "Write down what the daemon is told, for replay."),
        "replay": ("balancerd.cli.replay:replay", "Decide a recorded trace anew, under one configuration or two."),
        "simulate": ("balancerd.cli.simulate:simulate", "Try policies on a machine in memory."),
        "doctor": ("balancerd.cli.doctor:doctor", "Try out whether balancerd can work on this machine."),
        "config": ("balancerd.cli.config:config", "Check, show, compare and describe the configuration."),
        "service": (
            "balancerd.cli.service.command:service",
            "Install or remove the systemd service of this installation.",
        ),
        "policies": ("balancerd.cli.policies:policies", "See which kinds of policy can be named in the configuration."),
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
