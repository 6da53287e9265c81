"""What recording costs a tick: a thousand processes in memory, with and without it, side by side.

    python -m tests.bench.bench_trace [--processes 1000] [--rounds 20] [--busy 1.0]

One engine after the other has ten ticks, in turn, over the same kind of machine: one that nobody taps, one whose ports
are tapped while nobody records, and one that is recorded. Of each the CPU time of the loop's thread is told, of the
last also that of whoever fetches: making lines is not the loop's. `busy` is the share of processes that each survey
reads anew; the others are told by the same objects. Of the busy ones a tenth is sampled in each tick.

Aim: the loop's tick takes less than a tenth more while it is recorded. Ends with 1 when that is missed.
"""

import argparse
import gzip
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from balancerd import plugins
from balancerd.config.schema import Config, PolicyConfig, SelectConfig
from balancerd.engine.memory import new_memory
from balancerd.engine.tick import Engine
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.sample import Survey
from balancerd.ports import SurveyScope
from balancerd.settings import build_policies, build_settings
from balancerd.trace.recorder import Recorder, Source
from balancerd.trace.tap import Tap, TapClock, TapEngine, TapKernel, TickEngine
from tests.bench.bench_native import Row, print_table
from tests.unit.fakes import MIB, FakeClock, FakeKernel, make_process

AIM_RATIO = 1.10
TICKS = 10
VERSION = (6, 12)
CONFIG = Config(
    select=SelectConfig(min_age_seconds=0.0, scan_budget_ratio=1.0),
    policies=(PolicyConfig(name="home", kind="follow-cpu"), PolicyConfig(name="parts", kind="access")),
)


class Crowd(FakeKernel):
    """Reads the busy share of its processes anew at each survey."""

    def __init__(self, clock: FakeClock, processes: int, busy: float) -> None:
        super().__init__(clock)
        for index in range(processes):
            node = index % 4
            self.add(make_process(100 + index, run={node: 2.0}, rss_bytes=256 * MIB), {node: 250, (node + 1) % 4: 6})
        self._busy = [ProcessId(100 + index, 1) for index in range(round(processes * busy))]
        self._turn = 0

    def survey(self, scope: SurveyScope) -> Survey:
        self._turn += 1
        for process in self._busy:
            known = self.processes.pop(process)
            run = {NodeId(node): seconds for node, seconds in (known.run_seconds or {}).items()}
            grown = known.rss_bytes + (64 * MIB if (process.pid + self._turn) % 10 == 0 else 0)
            self.processes[process] = replace(known, run_seconds=run, rss_bytes=grown % (4096 * MIB) + MIB)
        return super().survey(scope)


class Case:
    """One engine, and the CPU seconds of its ticks."""

    def __init__(self, processes: int, busy: float, *, tapped: bool, recorded: bool) -> None:
        self.clock = FakeClock()
        kernel = Crowd(self.clock, processes, busy)
        settings = build_settings(CONFIG)
        source = Source(version="bench", kernel=VERSION, config=CONFIG, own_pid=1)
        self.recorder = Recorder(lambda: source, lambda: 0.0)
        tap = Tap(should_stop=lambda: False)
        engine: TickEngine = Engine(
            kernel=TapKernel(kernel, tap) if tapped else kernel,
            clock=TapClock(self.clock, tap) if tapped else self.clock,
            policies=build_policies(CONFIG, plugins.discover(), VERSION),
            settings=settings,
            should_stop=tap.should_stop if tapped else lambda: False,
            memory=new_memory(
                cooldown_seconds=20.0, rates=settings.rates, scan_budget_ratio=settings.scan_budget_ratio
            ),
        )
        self.engine = TapEngine(engine, tap, self.recorder) if tapped else engine
        self.number = self.recorder.start(86_400.0) if recorded else None
        self.seconds: list[float] = []
        self.fetch_seconds: list[float] = []
        self.bytes: list[int] = []

    def run(self, ticks: int) -> None:
        for _ in range(ticks):
            begin = time.thread_time()
            self.engine.tick()
            self.seconds.append(time.thread_time() - begin)
            self.clock.time += 2.0
            if self.number is not None:
                begin = time.thread_time()
                lines = self.recorder.fetch(self.number).lines
                self.fetch_seconds.append(time.thread_time() - begin)
                self.bytes.append(len(gzip.compress("\n".join(lines).encode("ascii"))))


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--busy", type=float, default=1.0)
    given = parser.parse_args(arguments)
    cases = {
        "not tapped": Case(given.processes, given.busy, tapped=False, recorded=False),
        "tapped": Case(given.processes, given.busy, tapped=True, recorded=False),
        "recorded": Case(given.processes, given.busy, tapped=True, recorded=True),
    }
    for case in cases.values():
        case.run(TICKS)  # everything is new to them
        case.seconds.clear()
        case.fetch_seconds.clear()
        case.bytes.clear()
    ratios: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(given.rounds):
        names = list(cases)
        for name in names[turn % 3 :] + names[: turn % 3]:
            cases[name].run(TICKS)
        base = statistics.median(cases["not tapped"].seconds[-TICKS:])
        for name, case in cases.items():
            ratios[name].append(statistics.median(case.seconds[-TICKS:]) / base)
    rows: list[Row] = [
        {
            "tick": name,
            "CPU ms": round(1000 * statistics.median(case.seconds), 3),
            "times": round(statistics.median(ratios[name]), 3),
            "fetch ms": round(1000 * statistics.median(case.fetch_seconds), 2) if case.fetch_seconds else "-",
            "packed bytes": round(statistics.median(case.bytes)) if case.bytes else "-",
        }
        for name, case in cases.items()
    ]
    print_table(rows)
    ratio = statistics.median(ratios["recorded"])
    missed = [f"a recorded tick takes {ratio:.3f} times as long"] if ratio > AIM_RATIO else []
    print("no aim was missed" if not missed else f"aim missed: {'; '.join(missed)}")
    print(
        json.dumps({"bench": "trace", "processes": given.processes, "busy": given.busy, "missed": missed, "rows": rows})
    )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
