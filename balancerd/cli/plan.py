"""`balancerctl plan`: what would be moved now, and what is refused. It must not know how the daemon is reached."""

from collections import Counter

import click

from balancerd.cli import words
from balancerd.cli.options import Document, Settings, ask, json_option, socket_option
from balancerd.cli.screen import UNKNOWN, Column, Table, draw, write, write_json

REFUSED = "refused"


@click.command(
    short_help="Show what would be moved now; moves nothing.",
    epilog="""\b
Examples:
  balancerctl plan
  balancerctl plan --all
  balancerctl plan --json | jq '[.moves[].bytes] | add'
""",
)
@click.option("--all", "show_all", is_flag=True, help="Show what a policy's own gate refuses, too, and what it needs.")
@socket_option
@json_option
@click.pass_obj
def plan(settings: Settings, *, show_all: bool, as_json: bool) -> None:
    """Show what would be moved now, as of the last tick: what moves first, then most gain for its cost. Moves nothing.

    SECONDS is the time in the kernel's calls, GAIN what a second then wins, in cores. SURE is the share of BYTES that
    is misplaced with 95 % certainty. STATE is moving, waits (the plan turned it down for now), observed (the mode is
    observe) or refused (the policy's gate refuses it; --all). "-" is not known; balancerctl explain PID tells more.

    In JSON: the answer of the daemon to GET /v1/plan, always with what is refused.
    """
    document = ask(settings, "/v1/plan")
    if as_json:
        write_json(document)
        return
    shown = [move for move in document["moves"] if show_all or move["state"] != REFUSED]
    if shown:
        draw(Table(columns=_columns(), rows=[_row(move) for move in shown]))
    _sum_up(document, len(document["moves"]) - len(shown))


def _columns() -> tuple[Column, ...]:
    rights = ("BYTES", "SECONDS", "GAIN", "SURE")
    return (
        Column(title="PID", right=True),
        Column(title="COMMAND", cut=True),
        *(Column(title=title) for title in ("BY", "FROM", "TO")),
        *(Column(title=title, right=True) for title in rights),
        Column(title="STATE"),
        Column(title="REASON"),
        Column(title="NEEDS", cut=True),
    )


def _row(move: Document) -> tuple[str, ...]:
    seconds, gain = move["seconds"], move["gain_cores"]
    return (
        str(move["pid"]),
        move["comm"],
        move["policy"],
        "threads"
        if move["action"] == "steer"
        else UNKNOWN
        if move["from"] is None
        else " ".join(f"{node}:{words.size(held)}" for node, held in move["from"].items()),
        "out" if move["action"] == "evict" else str(move["to"]),
        words.size(move["bytes"]),
        UNKNOWN if seconds is None else f"{seconds:.2f}",
        UNKNOWN if gain is None else f"{gain:.3f}",
        words.percent(move["confidence"]),
        move["state"],
        move["reason"],
        move["needs"],
    )


def _sum_up(document: Document, hidden: int) -> None:
    if document["tick"] is None:
        write("no tick yet", err=True)
        return
    states = Counter(move["state"] for move in document["moves"])
    planned = [move for move in document["moves"] if move["state"] != REFUSED]
    told = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "nothing to move"
    size = words.size(sum(move["bytes"] for move in planned))
    seconds = sum(move["seconds"] or 0.0 for move in planned)
    write(
        f"tick {document['tick']}, {words.age(document['age_seconds'])} ago: {told}; "
        f"{size} to move, {seconds:.2f} s in the kernel's calls",
        err=True,
    )
    if hidden:
        write(f"{words.count(hidden, 'refused move')} not shown (--all)", err=True)
