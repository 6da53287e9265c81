"""`balancerctl moves`: what was moved lately, and can be undone. It must not know how the daemon is reached."""

import click

from balancerd.cli import words
from balancerd.cli.options import Document, Settings, ask, json_option, socket_option
from balancerd.cli.screen import Column, Table, draw, write, write_json


@click.command(
    short_help="List the latest moves, of policies and commands.",
    epilog="""\b
Examples:
  balancerctl moves
  balancerctl moves --json | jq '.moves[] | select(.policy == "command") | .id'
""",
)
@socket_option
@json_option
@click.pass_obj
def moves(settings: Settings, *, as_json: bool) -> None:
    """List the latest moves, newest first: what moved from where to where, and how much can be put back.

    In JSON: the answer of the daemon to GET /v1/moves.
    """
    document = ask(settings, "/v1/moves")
    if as_json:
        write_json(document)
        return
    if not document["moves"]:
        write("no moves yet", err=True)
        return
    titles = (("ID", True), ("PID", True), ("BY", False), ("REASON", False), ("FROM", False), ("TO", False))
    more = (("MOVED", True), ("UNDOABLE", True), ("AGE", True))
    columns = [Column(title=title, right=right) for title, right in (*titles, *more)]
    draw(Table(columns=columns, rows=[_row(move) for move in document["moves"]]))


def _row(move: Document) -> tuple[str, ...]:
    return (
        str(move["id"]),
        str(move["pid"]),
        move["policy"],
        move["reason"],
        " ".join(f"{node}:{words.size(held)}" for node, held in move["from"].items()),
        move["to"],
        words.size(move["moved_bytes"]),
        words.size(move["undoable_bytes"]),
        words.age(move["age_seconds"]),
    )
