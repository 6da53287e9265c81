"""What is told of runs of bench_gaps.py: one line of JSON for each, and tables over all rounds."""

import json
import platform
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.bench.bench_native import Row, print_table
from tests.bench.victim import THREADS, Gaps, Lap


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of one mover. `seconds` is how long it moved, `arrived_ratio` the share of the memory on the target."""

    name: str
    seconds: float
    arrived_ratio: float
    left_ratio: float
    lap: Lap
    more: Mapping[str, object]


MEASURES: dict[str, Callable[[Gaps], float]] = {
    "p99.9 ms": lambda gaps: gaps.percentile_ns(0.999) / 1e6,
    "longest ms": lambda gaps: gaps.longest_ns / 1e6,
}


def table(runs: list[Run], thread: str) -> list[Row]:
    """Return a row for each mover: medians over its runs, ranges, and ratios to those of nothing and migratepages."""
    names = list(dict.fromkeys(run.name for run in runs))
    laps = {name: [run.lap[thread] for run in runs if run.name == name] for name in names}
    rows: list[Row] = []
    for name in names:
        row: Row = {"thread": thread, "moved by": name, "runs": len(laps[name])}
        row["p50 us"] = round(statistics.median(gaps.percentile_ns(0.5) / 1e3 for gaps in laps[name]), 1)
        row["p99 ms"] = round(statistics.median(gaps.percentile_ns(0.99) / 1e6 for gaps in laps[name]), 2)
        for title, measure in MEASURES.items():
            values = [measure(gaps) for gaps in laps[name]]
            row[title] = round(statistics.median(values), 2)
            row[f"{title[:-3]} range"] = f"{min(values):.2f}-{max(values):.2f}"
            for other in ("nothing", "migratepages"):
                if other in laps:
                    base = statistics.median(map(measure, laps[other]))
                    row[f"/{other}"[:5] + ("" if title[0] == "p" else " max")] = round(
                        statistics.median(values) / base, 2
                    )
        row["long ms"] = round(statistics.median(gaps.in_long_ns / 1e6 for gaps in laps[name]))
        rows.append(row)
    return rows


def moved_row(runs: list[Run]) -> Row:
    """Return how the moves of one mover went."""
    seconds = statistics.median(run.seconds for run in runs)
    return {
        "moved by": runs[0].name,
        "seconds": round(seconds, 2),
        "arrived %": round(100 * statistics.median(run.arrived_ratio for run in runs), 1),
        "left A %": round(100 * statistics.median(run.left_ratio for run in runs), 1),
        "and": "; ".join(f"{key} {value}" for key, value in runs[-1].more.items()),
    }


def as_json(run: Run) -> dict[str, object]:
    """Return one run without its histograms."""
    threads = {
        name: {
            "gaps": gaps.n,
            "p50_us": gaps.percentile_ns(0.5) / 1e3,
            "p99_ms": gaps.percentile_ns(0.99) / 1e6,
            "p999_ms": gaps.percentile_ns(0.999) / 1e6,
            "longest_ms": gaps.longest_ns / 1e6,
            "in_long_ms": gaps.in_long_ns / 1e6,
        }
        for name, gaps in run.lap.items()
    }
    told = {"name": run.name, "seconds": run.seconds, "arrived": run.arrived_ratio, "left": run.left_ratio}
    return {**told, "more": dict(run.more), "threads": threads}


def tell(runs: list[Run], names: list[str], mib: int) -> None:
    """Print the tables of what has run so far, and a line of JSON."""
    ordered = sorted(runs, key=lambda run: names.index(run.name))
    tables = {thread: table(ordered, thread) for thread in THREADS}
    moves = [moved_row([run for run in ordered if run.name == name]) for name in names]
    for rows in (*tables.values(), moves):
        print()
        print_table(rows)
    told = {"bench": "gaps", "kernel": platform.release(), "mib": mib, "tables": tables, "moves": moves}
    print(json.dumps(told), flush=True)
