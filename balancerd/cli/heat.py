"""`balancerctl heat PID`: a picture of one process's address space: which node holds it, how hot it is, who uses it.

Owns the command and what is said beside the picture. It must not know how the daemon is reached, or cells drawn.
"""

import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import click

from balancerd.cli import words
from balancerd.cli.heat_cells import has_heat
from balancerd.cli.heat_text import picture, row_cells, table
from balancerd.cli.options import Document, Settings, ask, json_option, socket_option
from balancerd.cli.screen import draw, escape, write, write_json
from balancerd.model.decision import Reason

PICTURE_ROWS: Final = 8
"""About so many rows of cells, of up to three lines each, beside a row for each small mapping."""

SVG_CELLS: Final = 1024

LEAST_CELLS: Final = 64
MOST_CELLS: Final = 2048
"""What the daemon allows."""

HOW_TO_WATCH: Final[Mapping[Reason | None, str]] = {
    None: "to have it watched, add {name: parts, kind: access} to policies",
    Reason.ONE_HOME: "to have it watched all the same, give that policy the option processes: all",
    Reason.NOT_WATCHED: "see balancerctl doctor, accesses, and min_cpu and min_rss of that policy",
}
"""What brings a process under watch that is not, by the reason why."""


@click.command(
    short_help="Draw the address space of one process: node, heat, who uses it.",
    epilog="""\b
Examples:
  balancerctl heat 4242
  balancerctl heat 4242 --svg heat.svg
  balancerctl heat 4242 | grep remote
  balancerctl heat 4242 --format json | jq '.mappings[].cells[] | select(.use == "shared")'
""",
)
@click.argument("pid", type=click.IntRange(min=1))
@click.option(
    "--format",
    "form",
    type=click.Choice(["picture", "table", "json"]),
    help="picture unless piped, table otherwise; json is --json.",
)
@click.option(
    "--cells",
    type=click.IntRange(min=LEAST_CELLS, max=MOST_CELLS),
    metavar="N",
    help="At most so many cells, of a power of two of bytes each, at least 2MiB: as fits unless given.",
)
@click.option("--svg", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write it to an SVG file.")
@socket_option
@json_option
@click.pass_obj
def heat(settings: Settings, pid: int, *, form: str | None, cells: int | None, svg: Path | None, as_json: bool) -> None:
    """Draw where the memory of process PID lies, how much it is used, and from which nodes.

    For each cell of a mapping the picture has the node that holds it, its heat beside the hottest cell, and whether it
    is used from the node where it lies (=), from another (the letter of that node), or from several (+). In the table,
    cells next to each other that look alike are one line; HEAT is 0 (not seen in use) to 4.

    Where a cell lies is taken from its own pages where its accesses are watched and sure, else from the estimate for
    its mapping. Heat is known of processes that a policy of kind access watches, and of those that accesses.heat does,
    which tells neither the threads nor the nodes.

    In JSON: the answer of the daemon to GET /v1/processes/PID/heat.
    """
    if as_json:
        form = "json"
    elif form is None:
        form = "picture" if sys.stdout.isatty() else "table"
    columns = shutil.get_terminal_size().columns
    if cells is None and svg is not None:
        cells = SVG_CELLS
    elif cells is None and form == "picture":
        cells = min(MOST_CELLS, max(LEAST_CELLS, PICTURE_ROWS * row_cells(columns)))
    document = ask(settings, f"/v1/processes/{pid}/heat" + ("" if cells is None else f"?cells={cells}"))
    if svg is not None:
        _write_svg(document, svg)
    elif form == "json":
        write_json(document)
    elif form == "table":
        draw(table(document))
        for line in _about_accesses(document):
            write(line, err=True)
    else:
        for line in (*_heading(document), *picture(document, columns)):
            write(line)


def _write_svg(document: Document, path: Path) -> None:
    # Here and not at the top: only a file needs it.
    from balancerd.cli.heat_svg import draw as draw_svg  # noqa: PLC0415
    from balancerd.cli.picture_file import write_picture  # noqa: PLC0415

    write_picture(path, draw_svg(document, tuple(_heading(document))))


def _heading(document: Document) -> Iterator[str]:
    process, placement = document["process"], document["placement"]
    yield (
        f"Process {process['pid']} ({escape(process['comm'])}): {words.size(process['rss_bytes'])} resident, "
        f"runs on {words.by_node(process['run_ratio'])}"
    )
    if placement is None:
        yield "memory: where it lies is not known"
    else:
        how = words.method(placement["method"], placement["queried_pages"])
        verb = "exactly" if placement["exact"] else "estimated"
        yield f"memory: {verb} by {how}, {words.age(placement['age_seconds'])} ago"
    yield from _about_accesses(document)


def _about_accesses(document: Document) -> Iterator[str]:
    told, why, is_warm = document["accesses"], document["unwatched"], has_heat(document)
    if is_warm:
        yield from _about_heat(document["heat"])
    elif document["heat"] is not None:
        yield f"heat: by {escape(document['heat']['method'])}: {escape(document['heat']['told'])}"
    unknown = "who uses it" if is_warm else "heat"
    if told is None:
        if why is None or why["reason"] is None:
            yield f"accesses: not watched, so {unknown} is not known: no policy of kind access asks for it"
            yield f"  {HOW_TO_WATCH[None]}"
            return
        detail = f" ({escape(why['detail'])})" if why["detail"] else ""
        yield f"accesses: not watched, so {unknown} is not known: {escape(why['reason'])}{detail}"
        yield f"  {_how_to_watch(why['reason'])}"
        return
    yield (
        f"accesses: by {escape(told['method'])} of {words.count(told['threads'], 'thread')}, "
        f"watched for {words.age(told['watched_seconds'])}"
    )
    yield (
        f"  {told['hits']} of {words.count(told['samples'], 'sample')} in the last {words.age(told['seconds'])} "
        f"told an address, {told['lost_samples']} lost"
    )
    if told["unreported_regions"]:
        yield f"  not told: {told['unreported_regions']} more regions, but for what is sure in them"


def _about_heat(heat: Document) -> Iterator[str]:
    cost = "" if heat["cpu_ratio"] is None else f", {words.percent(heat['cpu_ratio'])} of a core for it"
    yield (
        f"heat: by {escape(heat['method'])}, {words.count(heat['regions'], 'region')}, "
        f"watched for {words.age(heat['watched_seconds'])}, {words.age(heat['age_seconds'])} old{cost}"
    )


def _how_to_watch(reason: str) -> str:
    return next((how for known, how in HOW_TO_WATCH.items() if known == reason), words.next_step(reason))
