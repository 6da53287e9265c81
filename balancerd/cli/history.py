"""`balancerctl history`: what was decided and done, from the daemon, or from its file when it does not run.

Owns the pages it asks for and what they look like. It must not know sqlite.
"""

import csv
import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import click

from balancerd.cli import words
from balancerd.cli.exits import CommandError, NotRunningError
from balancerd.cli.moments import format_moment, parse_moment, spell_moment
from balancerd.cli.options import SCHEMA, Document, Settings, ask, json_option, socket_option
from balancerd.cli.screen import UNKNOWN, Column, Table, draw, escape, write, write_json

DEFAULT_FILE: Final = "/var/lib/balancerd/history.sqlite"
MOST_OF_A_PAGE: Final = 1000
"""What the daemon gives at once, see control/history_api.py."""

_FORMULA: Final = ("=", "+", "-", "@")

CSV_COLUMNS: Final = (
    *("id", "time", "kind", "decision", "policy", "action", "pid", "start_ticks", "comm", "workload"),
    *("from", "to", "bytes", "reason", "detail", "move", "counts", "tick", "daemon"),
)

Ask = Callable[[Document], Document]
"""Returns the page that a question, keys as in the control API, asks for."""


class _Moment(click.ParamType[float]):
    """A time, by whatever words."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if not isinstance(value, str):
            return float(value)
        try:
            return parse_moment(value, time.time())
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(
    short_help="Show what was decided and done, and what it came to.",
    epilog="""\b
Examples:
  balancerctl history
  balancerctl history --since -2h --workload nginx.service
  balancerctl history --since 2026-11-20 --until 2026-11-21T12:00 --policy home --limit 1000
  balancerctl history --pid 4242 --csv > 4242.csv
  balancerctl history --json | jq '.events[] | select(.kind == "result")'
""",
)
@click.option("--since", type=_Moment(), help="Not before this: -2h, 2026-11-20, 2026-11-20T12:00, 12:00.")
@click.option("--until", type=_Moment(), help="Before this.")
@click.option("--workload", metavar="NAME", help="Only of this workload.")
@click.option("--policy", metavar="NAME", help="Only of this policy; command: what operators asked for.")
@click.option("--pid", type=click.IntRange(1, 1 << 22), metavar="N", help="Only of this process.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000_000), default=50, show_default=True, metavar="N", help="The newest N only."
)
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values, with a line of titles.")
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    help=f"Read this file and ask nobody. While the daemon does not run, it is {DEFAULT_FILE}.",
)
@socket_option
@json_option
@click.pass_obj
def history(
    settings: Settings,
    *,
    since: float | None,
    until: float | None,
    workload: str | None,
    policy: str | None,
    pid: int | None,
    limit: int,
    as_csv: bool,
    file: Path | None,
    as_json: bool,
) -> None:
    """Show what was decided and done, newest first: decisions, why they were held, moves, and what these came to.

    EVENT is decision (a policy wants something new), held (it was turned down, for another reason than before), move,
    eviction, threads, or result (what a move came to). DECISION is the number of the decision that an event belongs
    to; an operator's command has none. BYTES is what is wanted, or what was done. "-" is not known, or does not apply.

    In JSON: schema, events and so on as the daemon answers to GET /v1/history, all pages as one.
    """
    if as_csv and as_json:
        raise click.UsageError("--csv and --json cannot both be had")
    question = {"since": since, "until": until, "workload": workload, "policy": policy, "pid": pid}
    document = _collect(settings, file, {key: value for key, value in question.items() if value is not None}, limit)
    if as_json:
        write_json(document)
        return
    if as_csv:
        write(_csv(document["events"]).removesuffix("\n"))
    elif document["events"]:
        draw(Table(columns=_columns(), rows=[_row(event) for event in document["events"]]))
    _sum_up(document, since)


def _collect(settings: Settings, file: Path | None, question: Document, limit: int) -> Document:
    """Return up to `limit` events as one page, from the file or from the daemon."""
    if file is not None:
        return _pages(_from_file(file), question, limit)
    try:
        return _pages(lambda asked: ask(settings, f"/v1/history?{_spell(asked)}"), question, limit)
    except NotRunningError:
        file = Path(DEFAULT_FILE)
        try:
            document = _pages(_from_file(file), question, limit)
        except CommandError:
            document = None
        if document is None:
            raise
        write(f"balancerd is not running: this is from {escape(str(file))}", err=True)
        return document


def _pages(get: Ask, question: Document, limit: int) -> Document:
    """Ask page by page; the last one tells what is left off."""
    page = get({**question, "limit": min(limit, MOST_OF_A_PAGE)})
    events, daemons = page["events"], {daemon["id"]: daemon for daemon in page["daemons"]}
    while len(events) < limit and page["next_before"] is not None:
        more = min(limit - len(events), MOST_OF_A_PAGE)
        page = get({**question, "limit": more, "before": page["next_before"]})
        events += page["events"]
        daemons |= {daemon["id"]: daemon for daemon in page["daemons"]}
    return {**page, "events": events, "daemons": [daemons[number] for number in sorted(daemons)]}


def _spell(question: Document) -> str:
    return urlencode(question, errors="surrogateescape")


def _from_file(file: Path) -> Ask:
    # Here and not at the top: who asks the daemon needs no sqlite.
    from balancerd.history.reader import HistoryUnreadableError, Query, read_history  # noqa: PLC0415

    def get(question: Document) -> Document:
        try:
            return {"schema": SCHEMA, **read_history(file, Query(**question)).document()}
        except (HistoryUnreadableError, OSError) as error:
            raise CommandError(f"{escape(str(file))} cannot be read: {escape(str(error))}") from error

    return get


def _columns() -> tuple[Column, ...]:
    return (
        Column(title="TIME"),
        Column(title="DECISION", right=True),
        Column(title="EVENT"),
        Column(title="PID", right=True),
        Column(title="COMMAND", cut=True),
        Column(title="WORKLOAD", cut=True),
        *(Column(title=title) for title in ("BY", "FROM", "TO")),
        Column(title="BYTES", right=True),
        Column(title="REASON"),
        Column(title="DETAIL", cut=True),
    )


def _row(event: Document) -> tuple[str, ...]:
    return (
        format_moment(event["at_unix_seconds"]),
        _or_unknown(event["decision"]),
        event["kind"],
        str(event["pid"]),
        _or_unknown(event["comm"]),
        _or_unknown(event["workload"]),
        event["policy"],
        _from(event) or UNKNOWN,
        "out" if event["action"] == "evict" else _or_unknown(event["to"]),
        words.size(event["bytes"]),
        event["reason"],
        event["detail"],
    )


def _from(event: Document) -> str:
    return " ".join(f"{node}:{words.size(held)}" for node, held in event["from"].items())


def _or_unknown(value: object) -> str:
    return UNKNOWN if value is None else str(value)


def _csv(events: list[Document]) -> str:
    """Return lines for a spreadsheet: what is not known is empty, and no name is a formula or more than one line."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for event in events:
        flat = {
            **event,
            "time": spell_moment(event["at_unix_seconds"]),
            "from": " ".join(f"{node}:{held}" for node, held in event["from"].items()),
            "counts": " ".join(f"{status}:{count}" for status, count in event["counts"].items()),
        }
        writer.writerow(list(_cells(flat)))
    return stream.getvalue()


def _cells(flat: Document) -> Iterator[str]:
    for column in CSV_COLUMNS:
        value = flat[column]
        yield "" if value is None else _cell(escape(value)) if isinstance(value, str) else str(value)


def _cell(text: str) -> str:
    """Return a text that a spreadsheet takes for one, and not for a formula: it begins with an apostrophe then."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _sum_up(document: Document, since: float | None) -> None:
    if not document["events"]:
        write("no events" if document["oldest_at_unix_seconds"] is None else "no events that fit", err=True)
    if document["left_off"]:
        write(f"{words.count(document['left_off'], 'older event')} not shown (--limit)", err=True)
    oldest = document["oldest_at_unix_seconds"]
    if since is not None and oldest is not None and oldest > since:
        write(f"the oldest event that is kept is of {format_moment(oldest)}", err=True)
