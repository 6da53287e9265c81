"""What processes that wander lose under the whole engine and under nobody, by how long they stay (simulated).

    python -m tests.bench.bench_stays --stays 5,60,300,1200 --gib 1,4 --seeds 6 [--write FILE]

Four busy processes on two nodes at distance 21 stay on a node for an exponentially distributed time, and then go to
the other one; each scheduler has its say besides. Lost is, in percent of the time run, what remote accesses cost by the
model of the gate, and twice the time of copying. Told are means over the seeds. The same seed makes the threads go the
same ways with and without the engine, but where the memory is meanwhile is not the same: the difference has a standard
error of its own, which is told beside it. `break-even` is stays over the time in which one move pays.
"""

import argparse
import json
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from balancerd.engine.gate import cost_seconds, gain_cores
from balancerd.simulation.run import run_engine, run_without
from balancerd.simulation.scenario import GroupSection, MachineSection, Scenario, SchedulerKind, SchedulerSection
from tests.bench.bench_dwell import numbers
from tests.simulations import GIB, KINDS, make_means

PROCESSES = 4
LEAST_SECONDS = 7200.0
LEAST_STAYS = 20
MOST_RATIO = 1.01
DOUBT = 2.0
"""A mean that is so many standard errors above the bound is above it; less may be chance."""


def wanderers(stay_seconds: float, gib: float, kind: SchedulerKind) -> Scenario:
    machine = MachineSection(nodes=2, cpus=16, memory_bytes=64 * GIB)
    group = GroupSection(name="wanderer", count=PROCESSES, memory_bytes=round(gib * GIB), stays_seconds=stay_seconds)
    return Scenario(
        duration_seconds=max(LEAST_SECONDS, LEAST_STAYS * stay_seconds),
        machine=machine,
        scheduler=SchedulerSection(kind=kind),
        groups=(group,),
    )


def break_even_seconds(scenario: Scenario) -> float:
    """The time at a node in which one process loses what moving all of its memory costs."""
    machine, (group,) = scenario.machine, scenario.groups
    extra = machine.distance_between(0, 1) / 10 - 1.0
    return cost_seconds(group.memory_bytes, machine.bandwidth_bytes_per_second) / gain_cores(1.0, extra, 0.0)


def standard_error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def measure(stay_seconds: float, gib: float, kind: SchedulerKind, seeds: int) -> dict[str, float | str]:
    scenario = wanderers(stay_seconds, gib, kind)
    nothing, engine, moving = [], [], []
    for seed in range(1, seeds + 1):
        alone, moved = run_without(scenario, seed).accounts, run_engine(scenario, seed, make_means()).accounts
        nothing.append(100 * alone.lost_seconds / alone.run_seconds)
        engine.append(100 * moved.lost_seconds / moved.run_seconds)
        moving.append(100 * moved.moving_seconds / moved.run_seconds)
    excess = [e - MOST_RATIO * n for e, n in zip(engine, nothing, strict=True)]
    return {
        "stay_seconds": stay_seconds,
        "gib": gib,
        "scheduler": kind,
        "break_even": stay_seconds / break_even_seconds(scenario),
        "seconds": scenario.duration_seconds,
        "seeds": seeds,
        "nothing": statistics.fmean(nothing),
        "engine": statistics.fmean(engine),
        "engine_error": standard_error(engine),
        "moving": statistics.fmean(moving),
        "excess": statistics.fmean(excess),
        "excess_error": standard_error(excess),
    }


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stays", type=numbers, default=numbers("5,60,300,1200"), help="mean stays, seconds")
    parser.add_argument("--gib", type=numbers, default=numbers("1,4"))
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--write", type=Path, help="keep the line of JSON in this file, too")
    given = parser.parse_args(arguments)
    rows, missed = [], []
    print("stays, memory, scheduler       break-even  nothing   engine  +/-   of it moving   over 1.01 nothing  +/-")
    for gib in given.gib:
        for stay in given.stays:
            for kind in KINDS:
                row = measure(stay, gib, kind, given.seeds)
                rows.append(row)
                name = f"{stay:g} s, {gib:g} GiB, {kind}"
                print(
                    f"{name:<31}{row['break_even']:9.1f}{row['nothing']:9.2f}{row['engine']:9.2f}"
                    f"{row['engine_error']:6.2f}{row['moving']:13.2f}{row['excess']:17.2f}{row['excess_error']:9.2f}",
                    flush=True,
                )
                if float(row["excess"]) > DOUBT * float(row["excess_error"]):
                    missed.append(f"{name}: {row['engine']:.2f} % against {row['nothing']:.2f} %")
    text = json.dumps({"bench": "stays", "rows": rows, "missed": missed})
    if given.write is not None:
        given.write.write_text(f"{text}\n", encoding="ascii")
    print(text)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
