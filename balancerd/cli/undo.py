"""`balancerctl undo`: have moved memory put back, of one move or of all since a while ago. It must not know how.

Owns which moves the last minutes made: an undo is a move itself, and neither it nor what it undid is undone again.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import click

from balancerd.cli import account, words
from balancerd.cli.duration import DurationType
from balancerd.cli.exits import CommandError, ExitCode
from balancerd.cli.follow import follow_job, run_job
from balancerd.cli.options import SCHEMA, Document, Settings, ask, job_options
from balancerd.cli.screen import escape, write, write_json

_FINISHED: Final = "done"


@click.command(
    short_help="Put back what a move moved, or all moves since a while ago.",
    epilog="""\b
Examples:
  balancerctl moves
  balancerctl undo 7
  balancerctl undo --since 10m
""",
)
@click.argument("move_id", metavar="[ID]", type=click.IntRange(min=1), required=False)
@click.option(
    "--since",
    type=DurationType(),
    metavar="DURATION",
    help="Undo all moves that began since so long ago, the latest first.",
)
@job_options
@click.pass_obj
@click.pass_context
def undo(
    ctx: click.Context, settings: Settings, move_id: int | None, *, since: float | None, wait: bool, as_json: bool
) -> None:
    """Put the pages that move ID moved back on the nodes where they came from, as far as they are where it left them.

    Moves of policies and of commands can be undone, as long as `balancerctl moves` lists them. An undo is a move
    itself, so it can be undone, too; --since leaves undos alone, and what they undid. For a while after it policies
    leave the process alone.

    Exits 0 when done, 1 when it failed or no page would move, 130 after Ctrl-C. In JSON: the answer of the daemon to
    GET /v1/jobs/ID at the end; with --since {schema, jobs: [job], left_out: [{move, pid, error}]}.
    """
    if (move_id is None) == (since is None):
        raise click.UsageError("Either the ID of a move or --since is needed.")
    if move_id is not None:
        ctx.exit(run_job(settings, {"kind": "undo", "move": move_id}, wait=wait, as_json=as_json))
    if not wait:
        raise click.UsageError("--since waits for one move after the other: leave --no-wait out.")
    moves = _undoable(ask(settings, "/v1/moves")["moves"], ask(settings, "/v1/jobs")["jobs"], since or 0.0)
    ctx.exit(_undo_all(settings, moves, as_json=as_json))


def _undoable(moves: Iterable[Document], jobs: Sequence[Document], since_seconds: float) -> list[Document]:
    """Return the moves since then that an undo would change, the latest first."""
    undos = [job for job in jobs if job["kind"] == "undo"]
    settled = {job["move"] for job in undos} | {job["undone_move"] for job in undos if job["state"] == _FINISHED}
    return [
        move
        for move in sorted(moves, key=lambda move: -int(move["id"]))
        if move["age_seconds"] <= since_seconds and move["undoable_bytes"] and move["id"] not in settled
    ]


def _undo_all(settings: Settings, moves: Sequence[Document], *, as_json: bool) -> ExitCode:
    jobs: list[Document] = []
    left_out: list[Document] = []
    code = ExitCode.OK
    for move in moves:
        request: Document = {"kind": "undo", "move": move["id"]}
        try:
            job, ended = follow_job(settings, request, quiet=as_json)
        except CommandError as error:  # its process is gone, or has a job already: the others can be undone
            if error.exit_code != ExitCode.FAILURE:
                raise
            left_out.append({"move": move["id"], "pid": move["pid"], "error": error.message})
            if not as_json:
                write(f"move {move['id']} of process {move['pid']} is left out: {error.message}", err=True)
            continue
        jobs.append(job)
        if not as_json:
            for line in account.tell(job):
                write(escape(line))
        code = max(code, ended)
        if ended is ExitCode.INTERRUPTED:
            break
    if as_json:
        write_json({"schema": SCHEMA, "jobs": jobs, "left_out": left_out})
    else:
        moved = words.size(sum(job["moved_bytes"] for job in jobs))
        write(f"{moved} moved back, of {words.count(len(jobs), 'move')}; {len(left_out)} left out", err=True)
    return code
