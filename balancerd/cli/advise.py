"""`balancerctl advise`: where something new had best be placed. Owns the formats, numad's among them.

Without a daemon it looks at the machine itself. What is best is decided in `engine.advice`.
"""

import re
from pathlib import Path
from typing import Final

import click

from balancerd.cli import words
from balancerd.cli.duration import DurationType
from balancerd.cli.exits import CommandError, ExitCode, NotPermittedError, NotRunningError
from balancerd.cli.options import SCHEMA, Document, Settings, ask, json_option, socket_option
from balancerd.cli.screen import Column, Table, draw, escape, write, write_json
from balancerd.config.units import format_duration

MIB: Final = 1 << 20
LEASE_SECONDS: Final = 60.0
LONGEST_LEASE_SECONDS: Final = 3600.0

_DEMAND = re.compile(r"([0-9]{1,5}(?:\.[0-9]{1,9})?)(?::([0-9]{1,9}))?", re.ASCII)


class DemandType(click.ParamType[tuple[float, int]]):
    """CPUS[:MIB] as numad -w takes it: CPUs and MiB of memory."""

    name = "CPUS[:MIB]"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, int]:
        """Return CPUs and bytes."""
        match = _DEMAND.fullmatch(str(value))
        if match is None:
            self.fail(f"{value!r} is not CPUS[:MIB], such as 4 or 4:2048 or 1.5:512", param, ctx)
        return float(match[1]), int(match[2] or 0) * MIB


@click.command(
    short_help="Advise where to place something new, as numad -w does.",
    epilog="""\b
Examples:
  balancerctl advise 4:8192
  balancerctl advise 4:8192 --numactl              numactl --cpunodebind=1 --membind=1
  balancerctl advise --numad 4:8192                what numad -w 4:8192 prints, for libvirt
  balancerctl advise 8 --no-lease --json | jq -r .advice.nodes
  balancerctl advise --list
  balancerctl advise --release 3
""",
)
@click.argument("demand", type=DemandType(), metavar="CPUS[:MIB]", required=False)
@click.option("--numad", "as_numad", is_flag=True, help="Print the nodes and nothing else, as numad -w does.")
@click.option("--numactl", "as_numactl", is_flag=True, help="Print the beginning of a command line of numactl(8).")
@click.option(
    "--lease",
    "lease_seconds",
    type=DurationType(least_seconds=1.0, most_seconds=LONGEST_LEASE_SECONDS),
    default=format_duration(LEASE_SECONDS),
    show_default=True,
    metavar="DURATION",
    help="How long the space is kept for you.",
)
@click.option("--no-lease", is_flag=True, help="Only ask: others may be given the same space.")
@click.option("--list", "list_leases", is_flag=True, help="List the leases that hold.")
@click.option("--release", type=click.IntRange(min=1), metavar="ID", help="Give a lease back.")
@socket_option
@json_option
@click.pass_obj
@click.pass_context
def advise(
    ctx: click.Context,
    settings: Settings,
    *,
    demand: tuple[float, int] | None,
    as_numad: bool,
    as_numactl: bool,
    lease_seconds: float,
    no_lease: bool,
    list_leases: bool,
    release: int | None,
    as_json: bool,
) -> None:
    """Advise which nodes have CPUS idle and MIB of memory free: the fewest, near together, and the tightest fit.

    It answers at once, from what the daemon saw last; without a daemon, from a look of its own. To root the daemon
    leases the space: until the time is over, or a new process has come there, it is advised to nobody else.

    Exits 0 when it fits, 5 when it does not: then the nodes are those that come nearest. With --numad always 0.

    In JSON: {schema, advice, lease, lease_detail}, as the daemon answers POST /v1/advice; with --list its answer to GET
    /v1/advice, with --release that to POST /v1/advice/ID/release.
    """
    if (demand is not None) + list_leases + (release is not None) != 1:
        raise click.UsageError("One of CPUS[:MIB], --list and --release is needed.")
    if as_numad + as_numactl + as_json > 1 or (demand is None and (as_numad or as_numactl)):
        raise click.UsageError("--numad, --numactl and --json are three ways to print advice: choose one.")
    if release is not None:
        _show_release(ask(settings, f"/v1/advice/{release}/release", post={}), release, as_json=as_json)
        return
    if demand is None:
        _show_leases(ask(settings, "/v1/advice"), as_json=as_json)
        return
    document = _ask(settings, demand, None if no_lease else lease_seconds)
    advice = document["advice"]
    if not advice["nodes"]:
        raise CommandError("no node of this machine has memory, as far as /sys tells")
    if as_json:
        write_json(document)
    elif as_numad:
        write(advice["nodes"])
        return
    elif as_numactl:
        write(f"numactl --cpunodebind={_nodes_with_cpus(advice)} --membind={advice['nodes']}")
    else:
        _show(document)
    if not advice["fits"]:
        if not as_json:
            write(f"it does not fit: {escape(advice['detail'])}", err=True)
        ctx.exit(ExitCode.FINDINGS)


def _ask(settings: Settings, demand: tuple[float, int], lease_seconds: float | None) -> Document:
    cpus, memory_bytes = demand
    post: Document = {"cpus": cpus, "memory_bytes": memory_bytes, "lease_seconds": lease_seconds}
    try:
        return ask(settings, "/v1/advice", post=post)
    except (NotRunningError, NotPermittedError) as error:
        why = error.message
    except CommandError as error:  # before the first tick, or too many leases: better unleased advice than none
        why = error.message
    return _look(cpus, memory_bytes, why)


def _look(cpus: float, memory_bytes: int, why: str) -> Document:
    """Advise from a look of our own; `why` the daemon does not."""
    # Here and not at the top: the answer of a daemon needs none of it.
    from balancerd.control.advice_facts import tell_advice  # noqa: PLC0415
    from balancerd.engine.advice import Demand, advise  # noqa: PLC0415
    from balancerd.kernel.errors import ParseError  # noqa: PLC0415
    from balancerd.kernel.machine.offer import read_offer  # noqa: PLC0415

    wanted = Demand(cpus=cpus, memory_bytes=memory_bytes)
    try:
        offered = read_offer(Path("/proc"), Path("/sys"))
    except (OSError, ParseError) as error:
        raise CommandError(f"{why}, and this machine does not tell of its nodes: {escape(str(error))}") from error
    told = tell_advice(advise(wanted, offered), wanted, age_seconds=0.0, source="machine")
    return {"schema": SCHEMA, "advice": told, "lease": None, "lease_detail": why}


def _nodes_with_cpus(advice: Document) -> str:
    """Return the nodes to run on: of the advised, those to which CPUs go; all where none were asked for."""
    from balancerd.model.ids import format_id_list  # noqa: PLC0415 -- only numactl's format needs it

    return format_id_list(share["node"] for share in advice["shares"] if share["cpus"] > 0) or str(advice["nodes"])


def _show(document: Document) -> None:
    advice, lease = document["advice"], document["lease"]
    write(f"place it on node{'' if advice['nodes'].isdecimal() else 's'} {escape(advice['nodes'])}")
    columns = [Column(title=title, right=True) for title in ("NODE", "CPUS", "MEMORY")]
    rows = [
        (str(share["node"]), f"{share['cpus']:.2f}", words.size(share["memory_bytes"])) for share in advice["shares"]
    ]
    draw(Table(columns=columns, rows=rows))
    if advice["fits"]:
        write(escape(advice["detail"]))
    if lease is not None:
        left = words.age(lease["left_seconds"])
        write(f"kept for you for {left} as lease {lease['id']}: balancerctl advise --release {lease['id']}", err=True)
    elif document["lease_detail"]:
        write(f"not leased: {escape(document['lease_detail'])}", err=True)


def _show_leases(document: Document, *, as_json: bool) -> None:
    if as_json:
        write_json(document)
    elif not document["leases"]:
        write("no leases", err=True)
    else:
        titles = (("ID", True), ("NODES", False), ("CPUS", True), ("MEMORY", True), ("LEFT", True))
        rows = [
            (
                str(lease["id"]),
                lease["nodes"],
                f"{lease['cpus']:g}",
                words.size(lease["memory_bytes"]),
                words.age(lease["left_seconds"]),
            )
            for lease in document["leases"]
        ]
        draw(Table(columns=[Column(title=title, right=right) for title, right in titles], rows=rows))


def _show_release(document: Document, lease_id: int, *, as_json: bool) -> None:
    if as_json:
        write_json(document)
    else:
        write(f"lease {lease_id} is given back", err=True)
