"""`balancerctl nodes`: the machine as a matrix of its nodes. It must not know how the daemon is reached."""

from collections.abc import Mapping, Sequence
from typing import Final

import click

from balancerd.cli import words
from balancerd.cli.options import Document, Settings, ask, json_option, socket_option
from balancerd.cli.screen import UNKNOWN, Column, Table, draw, escape, write, write_json
from balancerd.model.sample import PAGE_BYTES

HUGE_ORDER: Final = 9
"""A transparent huge page is 2**9 base pages."""

BALANCING: Final[Mapping[int, str]] = {0: "off", 1: "on", 2: "for tiering", 3: "on, and for tiering"}
"""The bits of kernel.numa_balancing, Documentation/admin-guide/sysctl/kernel.rst."""

ABSENT: Final = "not there"
"""What is said of a setting that this kernel does not have."""


@click.command(
    short_help="Show the nodes: CPUs, memory, load, speed, distances, devices.",
    epilog="""\b
Examples:
  balancerctl nodes
  balancerctl nodes --json | jq '.nodes[] | {node, load_ratio, free_bytes}'
""",
)
@socket_option
@json_option
@click.pass_obj
def nodes(settings: Settings, *, as_json: bool) -> None:
    """Show the NUMA nodes: CPUs and their load, memory, tiers, latencies, hugetlb pages, distances and devices.

    LOAD is the busy share of its CPUs since the tick before. HUGE is the part of FREE that lies in blocks of 2 MiB or
    more. KNOWN is the memory of processes that balancerd has looked at, as it estimates it. TIER is the kernel's
    number, smaller is faster; LATENCY and BANDWIDTH are those of reads by the nearest CPUs, as the firmware rates them.
    What the kernel of this machine does not tell of any node is left out.

    In JSON: the answer of the daemon to GET /v1/nodes.
    """
    document = ask(settings, "/v1/nodes")
    if as_json:
        write_json(document)
        return
    told = document["nodes"]
    if not told:
        write("no tick yet: nothing is known of the nodes")
        return
    _show_memory(told)
    _show_known(document)
    _show_speed(told)
    _show_distances(told)
    _show_devices(document["devices"])
    _show_kernel(document)


def huge_bytes(free_blocks: Sequence[int] | None) -> int | None:
    """Return how much of free memory lies in blocks that hold a huge page; None when the blocks are not known."""
    if free_blocks is None:
        return None
    return sum(count << order for order, count in enumerate(free_blocks) if order >= HUGE_ORDER) * PAGE_BYTES


def _show_memory(told: Sequence[Document]) -> None:
    has_tiers = any(node["tier"] is not None for node in told)
    columns = (
        Column(title="NODE", right=True),
        Column(title="CPUS", cut=True),
        *(Column(title=title, right=True) for title in ("LOAD", "SIZE", "FREE", "HUGE", "KNOWN")),
        *((Column(title="TIER", right=True),) if has_tiers else ()),
    )
    rows = [
        (
            str(node["node"]),
            node["cpus"] or "none",
            words.percent(node["load_ratio"]),
            words.size(node["total_bytes"]),
            words.size(node["free_bytes"]),
            words.size(huge_bytes(node["free_blocks"])),
            words.size(node["known_bytes"]),
            *((_number(node["tier"]),) if has_tiers else ()),
        )
        for node in told
    ]
    draw(Table(columns=columns, rows=rows))


def _show_known(document: Document) -> None:
    counts = document["processes"]
    if counts is not None:
        everyone = words.count(counts["surveyed"], "surveyed process")
        write(f"known to balancerd: where the memory of {counts['known']} of {everyone} lies")


def _show_speed(told: Sequence[Document]) -> None:
    """Show links and hugetlb pools of nodes, if there are any."""
    has_links = any(node["link"] is not None for node in told)
    sizes = sorted({pool["page_bytes"] for node in told for pool in node["hugetlb"] if pool["total_pages"]})
    if not has_links and not sizes:
        return
    links = ("LATENCY", "BANDWIDTH", "NEAREST CPUS") if has_links else ()
    columns = (
        Column(title="NODE", right=True),
        *(Column(title=title, right=True) for title in links),
        *(Column(title=f"HUGETLB {words.size(page_bytes)}", right=True) for page_bytes in sizes),
    )
    rows = [
        (
            str(node["node"]),
            *(_link(node["link"]) if has_links else ()),
            *(_pool(node["hugetlb"], page_bytes) for page_bytes in sizes),
        )
        for node in told
    ]
    write()
    draw(Table(columns=columns, rows=rows))


def _link(link: Document | None) -> tuple[str, str, str]:
    if link is None:
        return UNKNOWN, UNKNOWN, UNKNOWN
    latency, rate = link["read_latency_seconds"], link["read_bytes_per_second"]
    return (
        UNKNOWN if latency is None else f"{latency * 1e9:.0f}ns",
        UNKNOWN if rate is None else f"{words.size(round(rate))}/s",
        f"node {link['initiators']}" if link["initiators"] else UNKNOWN,
    )


def _pool(pools: Sequence[Document], page_bytes: int) -> str:
    found = [pool for pool in pools if pool["page_bytes"] == page_bytes]
    return f"{found[0]['free_pages']} of {found[0]['total_pages']} free" if found else UNKNOWN


def _show_distances(told: Sequence[Document]) -> None:
    if len(told) < 2:
        return
    columns = (
        Column(title="DISTANCE", right=True),
        *(Column(title=str(node["node"]), right=True) for node in told),
    )
    rows = [
        (f"from {node['node']}", *(_number(node["distances"].get(str(other["node"]))) for other in told))
        for node in told
    ]
    write()
    draw(Table(columns=columns, rows=rows))


def _show_devices(devices: Sequence[Document]) -> None:
    if not devices:
        return
    columns = (Column(title="NODE", right=True), Column(title="KIND"), Column(title="DEVICES", cut=True))
    places = sorted({(device["node"], device["kind"]) for device in devices})
    rows = [
        (str(node), kind, ", ".join(each["name"] for each in devices if (each["node"], each["kind"]) == (node, kind)))
        for node, kind in places
    ]
    write()
    draw(Table(columns=columns, rows=rows))


def _show_kernel(document: Document) -> None:
    kernel = document["kernel"]
    if kernel is None:
        return
    balancing, demotion = kernel["numa_balancing"], kernel["demotion"]
    write()
    write(
        f"kernel: NUMA balancing {ABSENT if balancing is None else BALANCING.get(balancing, str(balancing))}, "
        f"demotion {ABSENT if demotion is None else 'on' if demotion else 'off'}"
    )
    huge, defrag = kernel["transparent_huge_pages"], kernel["transparent_huge_defrag"]
    write(f"        transparent huge pages {escape(huge or ABSENT)}, defrag {escape(defrag or ABSENT)}")


def _number(value: int | None) -> str:
    return UNKNOWN if value is None else str(value)
