"""The answer of the control socket about the machine: pure, from the last report to a plain dict, ready for JSON.

The rules of api.py hold here, too: unknown is null, units stand in the key, nodes as keys are texts.

GET /v1/nodes
    schema, tick (null before the first), age_seconds
    nodes       [{node, cpus ("0-3"), load_ratio (since the tick before), total_bytes, free_bytes, available_bytes,
                known_bytes (memory of processes whose placement balancerd knows, each as it was last estimated; what
                several processes share counts for each; null when no placement is known),
                free_blocks ([n of 2**i base pages, by i]), min_watermark_bytes, low_watermark_bytes,
                high_watermark_bytes, tier (the kernel's number: smaller is faster),
                link: null or {initiators ("0-1"), read_latency_seconds, write_latency_seconds, read_bytes_per_second,
                write_bytes_per_second} as the firmware rates it for CPUs of the initiators,
                hugetlb: [{page_bytes, total_pages, free_pages}], distances: {node: n}}]
    devices     [{kind ("net", "nvme", "gpu"), name, node}]: those that lie at a node
    kernel      null or {numa_balancing (the number in the sysctl), demotion, transparent_huge_pages,
                transparent_huge_defrag}
    processes   null or {surveyed, known (those in known_bytes)}
"""

from balancerd.control.api import SCHEMA, Json, node_facts
from balancerd.control.state import View
from balancerd.model.ids import NodeId, format_id_list
from balancerd.model.machine import Link, Machine, NodeState
from balancerd.model.report import ProcessReport, TickReport
from balancerd.model.topology import Node


def nodes(view: View, *, now: float) -> Json:
    """Answer GET /v1/nodes at monotonic second `now`."""
    report = view.report
    machine = None if report is None else report.survey.machine
    known = () if report is None else tuple(each for each in report.processes if each.placement is not None)
    return {
        "schema": SCHEMA,
        "tick": None if report is None else report.number,
        "age_seconds": None if view.told_at is None else round(now - view.told_at, 6),
        "nodes": [] if report is None else _nodes(report, machine, known),
        "devices": [
            {"kind": device.kind, "name": device.name, "node": device.node}
            for device in (() if machine is None else machine.devices)
        ],
        "kernel": None if machine is None else _kernel(machine),
        "processes": None if report is None else {"surveyed": len(report.processes), "known": len(known)},
    }


def _nodes(report: TickReport, machine: Machine | None, known: tuple[ProcessReport, ...]) -> list[Json]:
    known_bytes = _known_bytes(known)
    told = []
    for node in report.survey.topology.nodes:
        state = None if machine is None else machine.nodes.get(node.id)
        told.append(
            {
                **node_facts(report, node),
                "load_ratio": None if state is None or state.load_ratio is None else round(state.load_ratio, 4),
                "known_bytes": known_bytes.get(node.id, 0) if known else None,
                **_state(state or NodeState(node=node.id)),
                "distances": _distances(node),
            }
        )
    return told


def _known_bytes(known: tuple[ProcessReport, ...]) -> dict[NodeId, int]:
    total: dict[NodeId, int] = {}
    for report in known:
        if report.placement is not None:
            for node, size_bytes in report.placement.bytes_by_node.items():
                total[node] = total.get(node, 0) + size_bytes
    return total


def _state(state: NodeState) -> Json:
    return {
        "free_blocks": None if state.free_blocks is None else list(state.free_blocks),
        "min_watermark_bytes": state.min_watermark_bytes,
        "low_watermark_bytes": state.low_watermark_bytes,
        "high_watermark_bytes": state.high_watermark_bytes,
        "tier": state.tier,
        "link": None if state.link is None else _link(state.link),
        "hugetlb": [
            {"page_bytes": pool.page_bytes, "total_pages": pool.total_pages, "free_pages": pool.free_pages}
            for pool in state.hugetlb
        ],
    }


def _link(link: Link) -> Json:
    return {
        "initiators": format_id_list(link.initiators),
        "read_latency_seconds": link.read_latency_seconds,
        "write_latency_seconds": link.write_latency_seconds,
        "read_bytes_per_second": link.read_bytes_per_second,
        "write_bytes_per_second": link.write_bytes_per_second,
    }


def _distances(node: Node) -> dict[str, int]:
    return {str(other): distance for other, distance in sorted(node.distances.items())}


def _kernel(machine: Machine) -> Json:
    return {
        "numa_balancing": machine.numa_balancing,
        "demotion": machine.demotion,
        "transparent_huge_pages": machine.transparent_huge_pages,
        "transparent_huge_defrag": machine.transparent_huge_defrag,
    }
