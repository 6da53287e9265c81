"""The simulator: what the default configuration costs in it, and how fast it is.

    python -m tests.bench.bench_simulation judge --seconds 3600
    python -m tests.bench.bench_simulation rounds
    python -m tests.bench.bench_simulation large --seconds 600
    python -m tests.bench.bench_simulation month
    python -m tests.bench.bench_simulation random --scenarios 1000
    python -m tests.bench.bench_simulation hours --hours 8

`judge` runs the shipped scenarios, but for the two large ones, under three schedulers and tells the work beside that
with nobody who moves memory, and at the optimum. `rounds` times what the engine takes for one tick, without what the
simulated machine takes, of 60 processes on 4 nodes and of 5,000 on 16, all of them busy. `large` tells simulated
seconds for a second here; `month` lets a month of such a machine pass, with few ticks where nothing happens. `random`
looks for memory that goes to and fro in scenarios made by chance. `hours` counts what Python has allocated while jobs
come and go for hours, the notes of the simulation among it: in the last third of the time no more than a twentieth
above the third before.
"""

import argparse
import gc
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TypeVar

from balancerd.config.schema import Config, SelectConfig
from balancerd.model.decision import Skip
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import (
    EvictionOutcome,
    EvictionStep,
    MigrationOutcome,
    MigrationStep,
    RunsNow,
    VerifyRequest,
    WholeMove,
)
from balancerd.model.report import TickReport
from balancerd.model.sample import SampleRequest, Sampling, Survey
from balancerd.model.steering import SteerOutcome, SteerStep
from balancerd.ports import Kernel, SurveyScope
from balancerd.simulation import loading
from balancerd.simulation.judge import Judgement, judge
from balancerd.simulation.run import run_engine
from balancerd.simulation.scenario import GroupSection, MachineSection, Scenario
from tests.bench.endurance import print_document
from tests.simulations import KINDS, is_memory_bound, make_means, random_scenario, under

LARGE = "ten-thousand"
MONTH = "fleet-month"
CHURN = "storm"
TICK_SECONDS = 2.0
LOOKS = 90
MOST_GROWTH = 1.05
MOST_ROUND_SECONDS = {"60 processes, 4 nodes": 0.1, "5000 processes, 16 nodes": 1.0}
MOST_RATIO = 1.01
UNKNOWN = "-"
GIB = 1 << 30
T = TypeVar("T")


class TimedKernel:
    """Another Kernel, and how long it took."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.seconds = 0.0
        self.mode = kernel.mode

    def survey(self, scope: SurveyScope) -> Survey:
        return self._timed(lambda: self._kernel.survey(scope))

    def sample(self, requests: tuple[SampleRequest, ...]) -> Sampling:
        return self._timed(lambda: self._kernel.sample(requests))

    def migrate(self, step: MigrationStep, should_stop: Callable[[], bool]) -> MigrationOutcome:
        return self._timed(lambda: self._kernel.migrate(step, should_stop))

    def begin_migration(
        self, step: MigrationStep, should_stop: Callable[[], bool]
    ) -> Generator[float, None, MigrationOutcome]:
        work = self._kernel.begin_migration(step, should_stop)
        while True:
            try:
                yield self._timed(lambda: next(work))
            except StopIteration as ended:
                outcome: MigrationOutcome = ended.value
                return outcome

    def steer(self, step: SteerStep) -> SteerOutcome:
        return self._timed(lambda: self._kernel.steer(step))

    def evict(self, step: EvictionStep, should_stop: Callable[[], bool]) -> EvictionOutcome:
        return self._timed(lambda: self._kernel.evict(step, should_stop))

    def migrate_whole(self, process: ProcessId, target_of: Mapping[NodeId, NodeId]) -> WholeMove:
        return self._timed(lambda: self._kernel.migrate_whole(process, target_of))

    def verify(self, request: VerifyRequest) -> RunsNow | Skip:
        return self._timed(lambda: self._kernel.verify(request))

    def _timed(self, work: Callable[[], T]) -> T:
        began = time.perf_counter()
        try:
            return work()
        finally:
            self.seconds += time.perf_counter() - began


def crowd(processes: int, nodes: int) -> Scenario:
    """As many busy processes, half of them misplaced, on CPUs of which three quarters are in use."""
    cpus = -(-processes * 4 // (nodes * 3))
    return Scenario(
        duration_seconds=60.0,
        machine=MachineSection(nodes=nodes, cpus=cpus, memory_bytes=processes * 2 * GIB // nodes),
        groups=(
            GroupSection(name="placed", count=processes // 2, memory_bytes=GIB // 2),
            GroupSection(name="stray", count=processes - processes // 2, memory_bytes=GIB // 2, lies_on=(0, 1)),
        ),
    )


def time_rounds(processes: int, nodes: int) -> list[float]:
    """Return what the engine took for each tick but the first two, which know of no CPU use."""
    kernels: list[TimedKernel] = []

    def wrap(kernel: Kernel) -> Kernel:
        kernels.append(TimedKernel(kernel))
        return kernels[-1]

    config = Config(select=SelectConfig(scan_budget_ratio=1.0))
    ends: list[tuple[float, float]] = []

    def listen(_report: TickReport) -> None:
        ends.append((time.perf_counter(), kernels[0].seconds))

    run_engine(crowd(processes, nodes), 1, make_means(config, wrap=wrap), listen)
    return [b[0] - a[0] - (b[1] - a[1]) for a, b in itertools.pairwise(ends[1:])]


def rounds(_given: argparse.Namespace) -> int:
    missed: list[str] = []
    rows = []
    for name, (processes, nodes) in {
        "60 processes, 4 nodes": (60, 4),
        "5000 processes, 16 nodes": (5000, 16),
    }.items():
        seconds = time_rounds(processes, nodes)
        median, worst = statistics.median(seconds), max(seconds)
        rows.append({"round": name, "median_seconds": median, "worst_seconds": worst, "ticks": len(seconds)})
        print(f"{name:<28} median {1000 * median:8.1f} ms, worst {1000 * worst:8.1f} ms of {len(seconds)} ticks")
        if worst > MOST_ROUND_SECONDS[name]:
            missed.append(f"{name}: {worst:.3f} s")
    print(json.dumps({"bench": "rounds", "rows": rows, "missed": missed}))
    return 1 if missed else 0


def large(given: argparse.Namespace) -> int:
    scenario = loading.load(LARGE).model_copy(update={"duration_seconds": given.seconds})
    began = time.perf_counter()
    run = run_engine(scenario, 1, make_means())
    took = time.perf_counter() - began
    print(f"{run.processes} processes: {given.seconds / took:.1f} simulated seconds for one here, {run.ticks} ticks")
    print(json.dumps({"bench": "large", "simulated_seconds": given.seconds, "seconds": took, "ticks": run.ticks}))
    return 0


def hours(given: argparse.Namespace) -> int:
    """Let jobs come and go, and look now and then at what is allocated."""
    scenario = loading.load(CHURN).model_copy(update={"duration_seconds": 3600.0 * given.hours})
    points: list[tuple[int, int]] = []
    n_ticks = itertools.count(1)
    every = max(1, round(given.hours * 3600 / TICK_SECONDS / LOOKS))

    def listen(_report: TickReport) -> None:
        if (tick := next(n_ticks)) % every == 0:
            gc.collect()
            points.append((tick, sys.getallocatedblocks()))

    run = run_engine(scenario, 1, make_means(), listen)
    third = len(points) // 3
    before, last = (statistics.median(blocks for _, blocks in points[-n * third :][:third]) for n in (2, 1))
    missed = [f"{last:.0f} blocks, then {before:.0f}"] if last > MOST_GROWTH * before else []
    for tick, blocks in points[:: max(1, len(points) // 10)]:
        print(f"tick {tick:>8}{blocks:>12} blocks")
    print(f"{given.hours:g} hours, {run.ticks} ticks; {last / before:.3f} times as much")
    document = {"bench": "hours", "hours": given.hours, "ticks": run.ticks}
    print_document({**document, "blocks": points, "growth": last / before, "missed": missed})
    return 1 if missed else 0


def month(given: argparse.Namespace) -> int:
    """Let the month pass under nobody, and under the engine."""
    scenario = loading.load(MONTH)
    seconds = min(given.seconds, scenario.duration_seconds)
    scenario = scenario.model_copy(update={"duration_seconds": seconds})
    began, cpu_before = time.perf_counter(), time.process_time()
    found = judge(scenario, 1, make_means(), with_optimum=False)
    took, cpu = time.perf_counter() - began, time.process_time() - cpu_before
    engine, nothing = found.engine, found.nothing
    print(
        f"{engine.processes} processes for {seconds / 86_400.0:.1f} days, under nobody and balancerd: {took:.0f} s, "
        f"{cpu:.0f} s of CPU, {engine.ticks} ticks; lost {engine.accounts.lost_seconds:.0f} s of CPU, "
        f"{nothing.accounts.lost_seconds:.0f} s under nobody"
    )
    row = {"simulated_seconds": seconds, "seconds": took, "cpu_seconds": cpu, "ticks": engine.ticks}
    print(json.dumps({"bench": "month", **row, "lost_ratio": found.lost_ratio}))
    return 0


def tell(name: str, kind: str, found: Judgement) -> dict[str, object]:
    best = found.optimum.lost_seconds
    row = {
        "scenario": name,
        "scheduler": kind,
        "load": found.nothing.load_ratio,
        "lost_nothing": found.nothing.accounts.lost_seconds,
        "lost_engine": found.engine.accounts.lost_seconds,
        "lost_optimum": best,
        "to_nothing": found.to_nothing_ratio,
        "to_optimum": found.to_optimum_ratio,
        "lost_ratio": found.lost_ratio,
        "lost_waiting": found.waiting_lost_seconds,
        "lost_foresight": found.foresight_lost_seconds,
        "to_waiting": found.to_ratio(found.waiting_lost_seconds),
        "to_foresight": found.to_ratio(found.foresight_lost_seconds),
        "steady": found.engine.steady_ratio_per_hour,
        "oscillated_bytes": found.engine.accounts.oscillated_bytes,
    }
    beside = UNKNOWN if found.to_optimum_ratio is None else f"{found.to_optimum_ratio:.4f}"
    print(
        f"{name:<18}{kind:<11}{found.nothing.load_ratio:6.2f}{found.nothing.accounts.lost_seconds:12.1f}"
        f"{found.engine.accounts.lost_seconds:12.1f}{UNKNOWN if best is None else f'{best:.1f}':>10}"
        f"{found.to_nothing_ratio or 1.0:9.4f}{beside:>9}{found.engine.steady_ratio_per_hour or 0.0:10.3%}",
        flush=True,
    )
    return row


def judge_all(given: argparse.Namespace) -> int:
    print("scenario          scheduler    load  lost/nothing  /engine  /optimum  to none  to best  steady/h")
    rows, ratios, missed = [], [], []
    for name in given.names or [name for name in loading.shipped() if name not in {LARGE, MONTH}]:
        for kind in KINDS:
            scenario = under(loading.load(name), kind, given.seconds)
            found = judge(scenario, given.seed, make_means())
            rows.append(tell(name, kind, found))
            if found.to_optimum_ratio is not None and found.nothing.load_ratio <= 0.85:
                ratios.append(found.to_optimum_ratio)
            if (found.to_nothing_ratio or 1.0) > MOST_RATIO:
                missed.append(f"{name} {kind}: {found.to_nothing_ratio}")
    mean = statistics.fmean(ratios) if ratios else None
    if mean is not None and mean > 1.05:
        missed.append(f"mean {mean:.4f} times the optimum")
    print("no optimum: SciPy is not installed" if mean is None else f"mean {mean:.4f} times the optimum")
    print(json.dumps({"bench": "judge", "rows": rows, "mean_to_optimum": mean, "missed": missed}))
    return 1 if missed else 0


def scan(given: argparse.Namespace) -> int:
    missed: list[str] = []
    worst = {True: 0.0, False: 0.0}
    for number in range(given.scenarios):
        seed = given.first + number
        scenario = random_scenario(seed)
        found = judge(scenario, seed, make_means(), with_optimum=False)
        ratio = found.to_nothing_ratio or 1.0
        is_bound = is_memory_bound(scenario)
        worst[is_bound] = max(worst[is_bound], ratio)
        oscillated = found.engine.accounts.oscillated_bytes
        if oscillated:
            missed.append(f"seed {seed}: {oscillated} bytes went to and fro")
        if ratio > MOST_RATIO:
            told = "all memory-bound" if is_bound else "not all of it memory-bound"
            missed.append(f"seed {seed}: {ratio:.4f} times nothing, {told}")
        if number % 100 == 99:
            print(f"{number + 1} scenarios, {len(missed)} missed", flush=True)
    print(f"at worst {worst[True]:.5f} times nothing where all is memory-bound, {worst[False]:.5f} where it is not")
    for each in missed:
        print(each)
    document = {"bench": "to-and-fro", "scenarios": given.scenarios, "worst": worst[True], "missed": missed}
    print(json.dumps({**document, "worst_unbound": worst[False]}))
    return 1 if missed else 0


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="part", required=True)
    parts: dict[str, Callable[[argparse.Namespace], int]] = {
        "judge": judge_all,
        "rounds": rounds,
        "large": large,
        "month": month,
        "random": scan,
        "hours": hours,
    }
    for name in parts:
        verbs.add_parser(name)
    verbs.choices["judge"].add_argument("names", nargs="*")
    verbs.choices["judge"].add_argument("--seed", type=int, default=1)
    verbs.choices["judge"].add_argument("--seconds", type=float, default=3600.0, help="for each scenario at most")
    verbs.choices["large"].add_argument("--seconds", type=float, default=600.0)
    verbs.choices["month"].add_argument("--seconds", type=float, default=30 * 86_400.0)
    verbs.choices["random"].add_argument("--scenarios", type=int, default=1000)
    verbs.choices["random"].add_argument("--first", type=int, default=0)
    verbs.choices["hours"].add_argument("--hours", type=float, default=8.0)
    given = parser.parse_args(arguments)
    return parts[given.part](given)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
