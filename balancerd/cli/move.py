"""`balancerctl move`: have memory moved between nodes. It must not know how."""

import click

from balancerd.cli.follow import run_job
from balancerd.cli.options import Document, Settings, job_options
from balancerd.cli.screen import write

WHOLE_WARNING = "the process may stand still until all of it is copied, and the call cannot be interrupted"


@click.command(
    short_help="Move a process's memory to other nodes, now.",
    epilog="""\b
Examples:
  balancerctl move 4242 --to 2
  balancerctl move 4242 --from 0-1 --to 2-3
  balancerctl move 4242 --to 0 --ignore-mempolicy --json | jq .job.pages
  balancerctl move 4242 --from 0-1 --to 2-3 --whole
""",
)
@click.argument("pid", type=click.IntRange(min=1))
@click.option("--to", "to", required=True, metavar="NODES", help='Where to: a list of nodes, such as "2-3" or "0,2".')
@click.option("--from", "from_", metavar="NODES", help="From where; all other nodes unless given.")
@click.option("--whole", is_flag=True, help="Move all by one call of migrate_pages(2), without pace or budgets.")
@click.option("--all-sharers", is_flag=True, help="Move pages that other processes map, too.")
@click.option("--ignore-mempolicy", is_flag=True, help="Move memory with an explicit mempolicy, too.")
@job_options
@click.pass_obj
@click.pass_context
def move(
    ctx: click.Context,
    settings: Settings,
    pid: int,
    *,
    to: str,
    from_: str | None,
    whole: bool,
    all_sharers: bool,
    ignore_mempolicy: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """Move memory of process PID to the nodes of --to, paced like the daemon's own moves, and tell how it goes.

    From set to set the relative position is kept, as migrate_pages(2) does it: the first node of --from goes to the
    first node of --to, the second to the second, and so on. When the sets differ in size, targets are counted round,
    and a node in both keeps what it has.

    Rates, room on the target, the cpuset, mempolicies and pressure are respected; whether the move pays, or the process
    was moved lately, is not asked. Ctrl-C ends the move after the call at hand and still prints the account.

    --whole moves shared pages, too, and tells only how it ended: the process may stand still for as long as the copy
    takes. It is refused where not all would fit, or where mempolicies would be overrun without --ignore-mempolicy.

    Exits 0 when done, 1 when it failed or no page would move, 130 after Ctrl-C. In JSON: the answer of the daemon to
    GET /v1/jobs/ID at the end.
    """
    request: Document = {"kind": "move", "pid": pid, "to": to, "ignore_mempolicy": ignore_mempolicy}
    if from_ is not None:
        request["from"] = from_
    if whole and all_sharers:
        raise click.UsageError("--whole moves the pages of all sharers anyway.")
    if whole:
        write(f"warning: {WHOLE_WARNING}", err=True)
        request["whole"] = True
    elif all_sharers:
        request["move_all"] = True
    ctx.exit(run_job(settings, request, wait=wait, as_json=as_json))
