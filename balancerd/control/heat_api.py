"""The answer of the control socket about one address space: pure, from what is known to a plain dict; see api.

GET /v1/processes/PID/heat?cells=N      (64 to 2048, 512 unless given; 400: not so; 404: no such process)
    schema, tick, cell_bytes (a power of two, so that there are at most as many cells as asked for)
    process     {pid, start_ticks, comm, rss_bytes, run_ratio (by node, or null)}
    placement   null or {age_seconds, method, queried_pages, exact}, as in GET /v1/processes/PID
    accesses    null: not watched; or {method ("registers"), age_seconds, seconds (that the samples are from),
                watched_seconds, samples, hits (of which told an address), lost_samples, throttled, threads,
                unreported_regions (of 2 MiB; of memory beyond the last region only runs are told)}
    unwatched   null or why it is not watched: {reason (null: no policy asks for it), reason_text, detail}
    heat        null: accesses.heat is null; or {method ("damon"), age_seconds, seconds (that it is of),
                watched_seconds, regions, cpu_ratio (of one core, that looking takes in the kernel; null: not known),
                told}: while nothing is known of this process told says why, and all but method is null
    mappings    ascending, neighbours of one kind and name as one: [{start, end (hexadecimal), kind (null: it came after
                the placement was found), name, shared, vmas (how many mappings), bytes_by_node, weight, sparse (only
                cells seen in use are listed), cells}]
        cells   [{start, end (hexadecimal), node (that holds at least 80 % of it, or null), bytes_by_node, asked (by its
                pages; else estimated for the whole mapping), weight (all accesses seen; of each page about the last
                fifty count), weight_by_node (the accessing CPU's), use ("local", "remote", "shared", "unknown": what
                most accesses are; null: none seen), weight_by_use, heat (0 to 1: how much of it is in use by the
                source of heat; null: not known)}]
    left_out    {mappings, bytes_by_node, weight}: those with little of either
"""

from collections.abc import Mapping
from typing import Final

from balancerd.control.api import SCHEMA, Json
from balancerd.control.state import View
from balancerd.engine.heat import HeatCell, HeatMapping, map_heat
from balancerd.model.access import AccessWindow
from balancerd.model.decision import REASON_TEXT, Reason, Skip
from balancerd.model.heat import Heats
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.report import ProcessReport
from balancerd.model.sample import PlacementSample

LEAST_CELLS: Final = 64
MOST_CELLS: Final = 2048
CELLS: Final = 512

WATCHING: Final = frozenset({Reason.NOT_WATCHED, Reason.ONE_HOME, Reason.NO_HOME})
"""Why a policy that judges by accesses does not have a process watched."""


def heat(view: View, report: ProcessReport, *, cells: int, now: float) -> Json:
    """Answer GET /v1/processes/PID/heat for a process of the last report, or one looked at just now."""
    sample = report.process
    windows = () if view.report is None else view.report.accesses
    window = next((each for each in windows if each.process == sample.id), None)
    heats = Heats() if view.report is None else view.report.heats
    heat_window = heats.windows.get(sample.id)
    found = map_heat(report.placement, window, heat_window, most_cells=cells)
    return {
        "schema": SCHEMA,
        "tick": None if view.report is None else view.report.number,
        "cell_bytes": found.cell_bytes,
        "process": {
            "pid": sample.id.pid,
            "start_ticks": sample.id.start_ticks,
            "comm": sample.comm,
            "rss_bytes": sample.rss_bytes,
            "run_ratio": None
            if report.run_ratio is None
            else _by_node({node: round(ratio, 4) for node, ratio in report.run_ratio.items()}),
        },
        "placement": None if report.placement is None else _placement(report.placement, now),
        "accesses": None if window is None else _accesses(window, now),
        "unwatched": _unwatched(report) if window is None else None,
        "heat": None if heats.method is None else _heat(heats, sample.id, now),
        "mappings": [_mapping(mapping) for mapping in found.mappings],
        "left_out": {
            "mappings": found.left_out_mappings,
            "bytes_by_node": _by_node(found.left_out_bytes),
            "weight": round(found.left_out_weight, 3),
        },
    }


def _placement(placement: PlacementSample, now: float) -> Json:
    return {
        "age_seconds": round(now - placement.taken_at, 6),
        "method": placement.method.value,
        "queried_pages": placement.queried_pages,
        "exact": placement.exact,
    }


def _accesses(window: AccessWindow, now: float) -> Json:
    return {
        "method": window.method.value,
        "age_seconds": round(now - window.taken_at, 6),
        "seconds": round(window.seconds, 6),
        "watched_seconds": round(window.watched_seconds, 6),
        "samples": window.samples,
        "hits": window.hits,
        "lost_samples": window.lost_samples + window.cut_samples,
        "throttled": window.throttled,
        "threads": window.threads,
        "unreported_regions": window.unreported_regions,
    }


def _heat(heats: Heats, process: ProcessId, now: float) -> Json:
    window = heats.windows.get(process)
    told = ""
    if window is None:
        obstacle = None if heats.obstacle is None else f"{heats.obstacle.seen}; fix: {heats.obstacle.fix}"
        told = obstacle or heats.missed.get(process) or "not looked at yet, or others are watched"
    return {
        "method": None if heats.method is None else heats.method.value,
        "age_seconds": None if window is None else round(now - window.taken_at, 6),
        "seconds": None if window is None else round(window.seconds, 6),
        "watched_seconds": None if window is None else round(window.watched_seconds, 6),
        "regions": None if window is None else len(window.regions),
        "cpu_ratio": None if window is None or window.cpu_ratio is None else round(window.cpu_ratio, 6),
        "told": told,
    }


def _unwatched(report: ProcessReport) -> Json:
    """Tell what selection, or a policy that watches, said last; selection alone is no reason if it let it through."""
    skips = [verdict for verdict in report.verdicts if isinstance(verdict, Skip)]
    told = [skip for skip in skips if skip.reason in WATCHING or skip.by == "select"]
    if not told:
        return {"reason": None, "reason_text": None, "detail": ""}
    last = told[-1]
    return {"reason": last.reason.value, "reason_text": REASON_TEXT[last.reason], "detail": last.detail}


def _mapping(mapping: HeatMapping) -> Json:
    return {
        "start": f"{mapping.start:x}",
        "end": f"{mapping.end:x}",
        "kind": None if mapping.kind is None else mapping.kind.value,
        "name": mapping.name,
        "shared": mapping.shared,
        "vmas": mapping.n_vmas,
        "bytes_by_node": _by_node(mapping.bytes_by_node),
        "weight": round(mapping.weight, 3),
        "sparse": mapping.is_sparse,
        "cells": [_cell(cell) for cell in mapping.cells],
    }


def _cell(cell: HeatCell) -> Json:
    return {
        "start": f"{cell.start:x}",
        "end": f"{cell.end:x}",
        "node": cell.node,
        "bytes_by_node": _by_node(cell.bytes_by_node),
        "asked": cell.is_asked,
        "weight": round(cell.weight, 3),
        "weight_by_node": _by_node({node: round(weight, 3) for node, weight in cell.weight_by_node.items()}),
        "use": None if cell.use is None else cell.use.value,
        "weight_by_use": {use.value: round(weight, 3) for use, weight in sorted(cell.weight_by_use.items())},
        "heat": None if cell.heat_ratio is None else round(cell.heat_ratio, 4),
    }


def _by_node(values: Mapping[NodeId, int] | Mapping[NodeId, float]) -> dict[str, float]:
    return {str(node): value for node, value in sorted(values.items())}
