"""`balancerctl evict`: have memory given back to swap and files. It must not know how."""

import click

from balancerd.cli.follow import run_job
from balancerd.cli.options import Document, Settings, job_options


@click.command(
    short_help="Give a process's memory back to swap and files, now.",
    epilog="""\b
Examples:
  balancerctl evict 4242
  balancerctl evict 4242 --cold-only
""",
)
@click.argument("pid", type=click.IntRange(min=1))
@click.option("--cold-only", is_flag=True, help="Move nothing out; only make it the first to go (MADV_COLD).")
@job_options
@click.pass_obj
@click.pass_context
def evict(ctx: click.Context, settings: Settings, pid: int, *, cold_only: bool, wait: bool, as_json: bool) -> None:
    """Have the private memory of process PID written to swap or its files at once (MADV_PAGEOUT).

    Paced by evict.rate_limit, paused under pressure. What cannot go, such as locked memory, is counted. Ctrl-C ends it
    after the call at hand and still prints the account.

    Exits 0 when done, 1 when it failed or no page would go, 130 after Ctrl-C. In JSON: the answer of the daemon to
    GET /v1/jobs/ID at the end.
    """
    request: Document = {"kind": "evict", "pid": pid, "cold_only": cold_only}
    ctx.exit(run_job(settings, request, wait=wait, as_json=as_json))
