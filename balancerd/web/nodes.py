"""The nodes: how full and how busy each is, and the matrix of what moved between them. Pure."""

from collections.abc import Iterator, Mapping
from typing import Final

from balancerd.model.ids import NodeId, format_id_list
from balancerd.model.report import TickReport
from balancerd.model.topology import Node
from balancerd.web.figures import Column, Piece, bar, colour, count, percent, section, size, table
from balancerd.web.markup import Html, element, shorten
from balancerd.web.past import Flows

MOST: Final = 32
"""Nodes that are shown; machines with more are told of in `balancerctl nodes`."""

MOST_CPUS: Final = 16
"""Characters of a list of CPUs: "0-15,128-143" on a machine with siblings."""

LEVELS: Final = 6
"""Shades of the heat map beside none."""

COLUMNS: Final = (
    Column(title="node"),
    Column(title="CPUs"),
    Column(title="load", number=True),
    Column(title="memory", wide=True),
    Column(title="by workloads", number=True),
    Column(title="free", number=True),
    Column(title="total", number=True),
)


def nodes(report: TickReport) -> Html:
    """Return a bar of memory for each node."""
    held: dict[NodeId, int] = {}
    for workload in report.workloads:
        for node, count_bytes in workload.bytes_by_node.items():
            held[node] = held.get(node, 0) + count_bytes
    shown = report.survey.topology.nodes[:MOST]
    left = len(report.survey.topology.nodes) - len(shown)
    note = f"{count(left, 'more node')} not shown: balancerctl nodes" if left else ""
    legend = element(
        "p",
        element("span", class_="key known"),
        "workloads, as far as known ",
        element("span", class_="key used"),
        "other use ",
        element("span", class_="key cache"),
        "page cache not used lately ",
        element("span", class_="key free"),
        "free",
        class_="legend",
    )
    rows = [_node(report, node, held.get(node.id, 0)) for node in shown]
    return section("nodes", "Nodes", table(COLUMNS, rows, "Memory and load of each node"), legend, note=note)


def matrix(report: TickReport, flows: Flows) -> Html:
    """Return distances between nodes, shaded by what moved from one to the other in the last hour."""
    shown = report.survey.topology.nodes[:MOST]
    most = max(flows.values(), default=0)
    head = element(
        "tr",
        element("th", "from \\ to", scope="col", class_="corner"),
        [element("th", _named(node.id), scope="col") for node in shown],
    )
    rows = [
        element(
            "tr",
            element("th", _named(source.id), scope="row"),
            [_cell(source, target.id, flows, most) for target in shown],
        )
        for source in shown
    ]
    grid = element(
        "table",
        element("caption", "Distance, and bytes moved in the last hour, from the node of a row", class_="unseen"),
        element("thead", head),
        element("tbody", rows),
        class_="matrix",
    )
    return section(
        "matrix",
        "Between nodes",
        element("div", grid, class_="scroll", id="matrix-scroll", tabindex=0, role="group", aria_label="Node matrix"),
        element(
            "p", _scale(), " moved in the last hour; the small number is the distance, 10 is local", class_="legend"
        ),
        note="From the node of a row to the node of a column.",
    )


def level(moved_bytes: int, most_bytes: int) -> int:
    """Return the shade of a cell, 0 for none; each is half of the next, as flows differ by orders of magnitude."""
    if moved_bytes <= 0:
        return 0
    steps = LEVELS
    while steps > 1 and moved_bytes <= most_bytes / 2:
        most_bytes //= 2
        steps -= 1
    return steps


def _named(node: NodeId) -> Html:
    return element("span", element("i", class_=f"dot {colour(node)}"), f"node {node}", class_="here")


def _cell(source: Node, target: NodeId, flows: Flows, most: int) -> Html:
    moved = flows.get((source.id, target), 0)
    distance = source.distances.get(target)
    told = element("small", "unknown" if distance is None else distance)
    if source.id == target:
        return element("td", element("b", "·"), told, class_="self")
    shade = f"h{level(moved, most)}"
    return element("td", element("b", size(moved) if moved else "0"), told, class_=shade)


def _scale() -> Html:
    return element("span", [element("i", class_=f"shade h{n}") for n in range(LEVELS + 1)], class_="scale")


def _node(report: TickReport, node: Node, known_bytes: int) -> tuple[Html | str, ...]:
    memory = report.survey.memory.get(node.id)
    machine = report.survey.machine
    state = None if machine is None else machine.nodes.get(node.id)
    load = None if state is None else state.load_ratio
    cpus = element("span", shorten(format_id_list(node.cpus), MOST_CPUS) if node.cpus else "none", class_="here")
    name = _named(node.id)
    if memory is None or not node.total_bytes:
        return (
            name,
            cpus,
            percent(load),
            "no memory" if not node.total_bytes else "unknown",
            "",
            "",
            size(node.total_bytes),
        )
    parts = dict(_parts(node.total_bytes, memory.free_bytes, memory.inactive_file_bytes, known_bytes))
    pieces = [
        Piece(ratio=held / node.total_bytes, colour=kind, told=f"{_WORDS[kind]}: {size(held)}")
        for kind, held in parts.items()
    ]
    told = ", ".join([f"node {node.id}", *(piece.told for piece in pieces)])
    return (
        name,
        cpus,
        percent(load) if node.cpus else "",
        bar(pieces, told),
        size(known_bytes),
        size(memory.free_bytes),
        size(node.total_bytes),
    )


_WORDS: Final[Mapping[str, str]] = {
    "known": "workloads, as far as known",
    "used": "other use",
    "cache": "page cache not used lately",
    "free": "free",
}


def _parts(total: int, free: int, cache: int, known: int) -> Iterator[tuple[str, int]]:
    """Split a node's memory; estimates may be larger than what is left for them."""
    used = max(0, total - free - cache)
    yield "known", min(known, used)
    yield "used", max(0, used - known)
    yield "cache", cache
    yield "free", free
