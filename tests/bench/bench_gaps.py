"""How long threads wait while the memory of their process moves: by us, by others, and by nobody at all.

    python -m tests.bench.bench_gaps [--mib 512] [--rounds 3] [--only NAME ...]

A fresh process (victim.c) for each: base pages touched on node A, and two threads pinned to CPUs of node B. "touch"
writes to random pages of that memory; "map" maps, touches and unmaps other pages, for which it needs mmap_lock. Their
gaps, the times from one round of their loops to the next, are counted while the memory goes from A to B:

nothing         nobody moves anything: the floor, which is the emulator's
computing       nobody does, and a process computes on the movers' CPU: what a mover costs that never made anyone wait
reading         nobody does; numa_maps and smaps are read, for each of which mmap_lock is held while a mapping is walked
migratepages    of numactl: migrate_pages(2)
numad           by itself, at its own time; its clock is set ahead (see watchers.py)
kernel          kernel.numa_balancing=1
ours            LiveKernel.migrate() in steps as long as the daemon's, with its default pace, as if it had just started
ours-settled    the same once it has found the size of its batches: a part of the memory has gone before, uncounted
ours-50ms       like ours, with migrate.stall_target=50ms
ours-ungrouped  like ours, without separators: the kernel unmaps up to 512 pages together, if a call has as many
ungrouped-50ms  like that, with migrate.stall_target=50ms

The order rotates from round to round; told are medians over the rounds, their range, and ratios of the medians. After
each run every word is checked. For numad and the kernel the count begins within the last LAP_SECONDS in which nothing
had moved yet, so that their waiting does not make long gaps rarer.

Needs a first node with enough memory and a later one with two CPUs: the lab's asymmetric-eight, started with
`--threads counted --kernel-arguments skew_tick=1`. There time is the number of instructions executed, and what else
the host does is in no gap. The longest gap of "touch" with nobody moving, on a host with two CPUs: 1 to 14 ms with
"single", 8 to 16 ms with "multi", 0.5 to 3.6 ms with "counted", there 1.3 to 4.3 ms with somebody computing. The
virtual CPUs take turns, at each expiring timer at the latest: the beat of victim.c makes one expire every
BEAT_MICROSECONDS, and skew_tick=1 keeps the ticks of the CPUs apart. Without them a gap would be what a mover computes
between two ticks, 4 ms or a multiple: up to 88 ms were seen with somebody computing. Since the CPUs share the time, a
mover seems some 3 times slower than it would be on a CPU of its own: compare ratios. 6.1 did not boot with "counted"
within the lab's patience: it needs "single", and a host with nothing else to do.

Prints a line of JSON for each run, and after each round tables of all rounds so far and a line of JSON.
"""

import argparse
import contextlib
import json
import os
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from balancerd.config.schema import Config
from balancerd.kernel.clock import MonotonicClock
from balancerd.kernel.live import LiveKernel
from balancerd.kernel.moving.pacing import GROUP_PAGES
from balancerd.kernel.processes.identity import read_start_ticks
from balancerd.model.decision import Reason
from balancerd.model.ids import NodeId, ProcessId
from balancerd.model.migration import MigrationOutcome, MigrationStep, Range
from balancerd.native import RangeArray, placement
from balancerd.settings import BUSY_RATIO, build_pace
from tests.bench.gap_tables import Run, as_json, tell
from tests.bench.victim import PAGE, Lap, Victim, beat, build, joined
from tests.bench.watchers import numad

MIB = 1 << 20
BEAT_MICROSECONDS = 200
LAP_SECONDS = 0.25
NOTHING_SECONDS = 6.0
SETTLE_SECONDS = 1.0
ARRIVED_RATIO = 0.9
PATIENCE_SECONDS = 60.0
"""How long numad and the kernel are waited for."""

ASKED_PAGES = 128
"""So few addresses are asked for, to see whether something has moved: it holds the threads up."""

BALANCING = Path("/proc/sys/kernel/numa_balancing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """From where to where, and on which CPUs: `cpu` and the next are the threads', on `mover_cpu` is everybody else."""

    source: int
    target: int
    mover_cpu: int
    cpu: int
    beat_cpu: int
    nodes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What a mover leaves behind: the gaps, how long it moved (None: for as long as it ran), and more to tell."""

    lap: Lap
    seconds: float | None = None
    more: Mapping[str, object] = field(default_factory=dict)


def find_place() -> Place:
    """Choose the first node, and the next one with two CPUs. Raises RuntimeError when there is none."""
    cpus: dict[int, list[int]] = {}
    for folder in Path("/sys/devices/system/node").glob("node[0-9]*"):
        cpus[int(folder.name[4:])] = sorted(int(link.name[3:]) for link in folder.glob("cpu[0-9]*"))
    source, *others = sorted(node for node in cpus if cpus[node])
    for target in others:
        if len(cpus[target]) >= 2:
            last = max(cpu for node in cpus if node != target for cpu in cpus[node])
            place = Place(
                source=source,
                target=target,
                mover_cpu=cpus[source][0],
                cpu=cpus[target][0],
                beat_cpu=last,
                nodes=max(cpus) + 1,
            )
            if cpus[target][1] == place.cpu + 1 and last != place.mover_cpu:
                return place
    raise RuntimeError("no node but the first has two CPUs in a row: start the lab with --topology asymmetric-eight")


def nothing(victim: Victim, place: Place) -> Moved:
    """Let time pass."""
    del place
    time.sleep(NOTHING_SECONDS)
    return Moved(lap=victim.lap())


def computing(victim: Victim, place: Place) -> Moved:
    """Compute, without any call of the system."""
    del place
    counted, end = 0, time.monotonic() + NOTHING_SECONDS / 2
    while time.monotonic() < end:
        counted += 1
    return Moved(lap=victim.lap())


def reading(victim: Victim, place: Place) -> Moved:
    """Read what tells of mempolicies and of huge pages, once each."""
    del place
    seconds = {}
    for name in ("numa_maps", "smaps"):
        began = time.monotonic()
        Path(f"/proc/{victim.pid}/{name}").read_bytes()
        seconds[f"{name}_ms"] = round(1e3 * (time.monotonic() - began), 2)
        time.sleep(SETTLE_SECONDS)
    return Moved(lap=victim.lap(), more=seconds)


def migratepages(victim: Victim, place: Place) -> Moved:
    subprocess.run(["migratepages", str(victim.pid), str(place.source), str(place.target)], check=True)
    return Moved(lap=victim.lap())


def by_numad(victim: Victim, place: Place) -> Moved:
    """Wait for numad; afterwards its log tells what it did, and the threads where they may run."""
    before = victim.cpus_allowed()
    with numad() as pid:
        moved = wait_for_others(victim, place)
        with os.fdopen(os.pidfd_open(pid)) as held:
            os.kill(pid, signal.SIGTERM)  # it ends once its call has returned
            select.select([held], [], [], PATIENCE_SECONDS)
    after = victim.cpus_allowed()
    threads = {"threads_moved": before != after, "cpus_allowed": " ".join(after)}
    return replace(moved, more={**moved.more, **threads})


def by_kernel(victim: Victim, place: Place) -> Moved:
    BALANCING.write_text("1", encoding="ascii")
    try:
        return wait_for_others(victim, place)
    finally:
        BALANCING.write_text("0", encoding="ascii")


def wait_for_others(victim: Victim, place: Place) -> Moved:
    """Wait until most of the memory has left the source. Laps before the last one without any move do not count."""
    began = last = time.monotonic()
    laps: list[Lap] = []
    ranges = RangeArray([(victim.start, victim.end, PAGE)])
    left_pages = 0
    while time.monotonic() - began < PATIENCE_SECONDS:
        time.sleep(LAP_SECONDS)
        found = placement(victim.pid, ranges, n_nodes=place.nodes, samples=ASKED_PAGES, phase=len(laps) / 7 % 1)
        left_pages = found.queried_pages - found.on_node[place.source]
        laps = [*(laps if left_pages else []), victim.lap()]
        if not left_pages:
            last = time.monotonic()
        if left_pages >= ARRIVED_RATIO * found.queried_pages:
            break
    seconds = time.monotonic() - last
    return Moved(
        lap=joined(laps), seconds=seconds if left_pages else 0.0, more={"waited_seconds": round(last - began, 1)}
    )


@dataclass(slots=True)
class Steps:
    """What the steps of one move came to."""

    calls: list[float] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    waited: Counter[str] = field(default_factory=Counter)
    moved_pages: int = 0
    query_seconds: float = 0.0

    def add(self, outcome: MigrationOutcome) -> None:
        self.calls += outcome.call_seconds
        self.batches.append(outcome.batch_pages)
        self.ends[outcome.stopped_by or ("done" if outcome.resume_at is None else "budget")] += 1
        self.waited.update(outcome.throttled_seconds)
        self.moved_pages += outcome.moved_pages
        self.query_seconds += outcome.query_seconds

    def told(self) -> dict[str, object]:
        return {
            "calls": len(self.calls),
            "longest_call_ms": round(1e3 * max(self.calls), 2),
            "median_call_ms": round(1e3 * statistics.median(self.calls), 2),
            "call_seconds": round(sum(self.calls), 2),
            "query_seconds": round(self.query_seconds, 2),
            "batch_pages": statistics.median(self.batches),
            "calls_mib_per_second": round(self.moved_pages * PAGE / MIB / sum(self.calls), 1),
            "waited_seconds": {cause: round(seconds, 2) for cause, seconds in self.waited.items()},
            "steps": dict(self.ends),
        }


def by_us(
    victim: Victim,
    place: Place,
    *,
    stall_target_seconds: float | None = None,
    settle_ratio: float = 0.0,
    group_pages: int = GROUP_PAGES,
) -> Moved:
    """Drive the daemon's mover to the end of the range; the first `settle_ratio` of it does not count."""
    pace = replace(build_pace(Config()), group_pages=group_pages)
    if stall_target_seconds is not None:
        limit = pace.stall_limit_seconds / pace.stall_target_seconds * stall_target_seconds
        pace = replace(pace, stall_target_seconds=stall_target_seconds, stall_limit_seconds=limit)
    with contextlib.closing(MonotonicClock()) as clock, contextlib.closing(LiveKernel(clock, pace=pace)) as kernel:
        process = ProcessId(victim.pid, read_start_ticks(victim.pid))
        counted_from = victim.start + int(settle_ratio * victim.pages) * PAGE
        if counted_from > victim.start:
            drive(kernel, process, victim.start, counted_from, place.target)
        victim.lap()
        began = time.monotonic()
        steps = drive(kernel, process, counted_from, victim.end, place.target)
        return Moved(lap=victim.lap(), seconds=time.monotonic() - began, more=steps.told())


def drive(kernel: LiveKernel, process: ProcessId, start: int, end: int, target: int) -> Steps:
    """Move a range, one step for each tick, until nothing of it is left or patience ends."""
    steps = Steps()
    resume_at: int | None = start
    began = time.monotonic()
    while resume_at is not None and time.monotonic() - began < 2 * PATIENCE_SECONDS:
        step = MigrationStep(
            policy="bench",
            process=process,
            target=NodeId(target),
            ranges=(Range(start=start, end=end, page_bytes=PAGE),),
            resume_at=resume_at,
            budget_bytes=end - start,
            budget_seconds=BUSY_RATIO * Config().tick_interval_seconds,
            reason=Reason.MISPLACED,
        )
        outcome = kernel.migrate(step, lambda: False)
        steps.add(outcome)
        resume_at = outcome.resume_at
    return steps


Move = Callable[[Victim, Place], Moved]

MOVES: dict[str, Move] = {
    "nothing": nothing,
    "computing": computing,
    "reading": reading,
    "migratepages": migratepages,
    "numad": by_numad,
    "kernel": by_kernel,
    "ours": by_us,
    "ours-settled": lambda victim, place: by_us(victim, place, settle_ratio=0.125),
    "ours-50ms": lambda victim, place: by_us(victim, place, stall_target_seconds=0.05),
    "ours-ungrouped": lambda victim, place: by_us(victim, place, group_pages=0),
    "ungrouped-50ms": lambda victim, place: by_us(victim, place, stall_target_seconds=0.05, group_pages=0),
}


def run(name: str, program: Path, mib: int, place: Place) -> Run:
    """Let one of them move the memory of a fresh process. Raises RuntimeError when a word of it is wrong afterwards."""
    with Victim(program, mib, first_cpu=place.mover_cpu, cpu=place.cpu) as victim:
        if victim.pages_by_node()[place.source] < ARRIVED_RATIO * victim.pages:
            raise RuntimeError(f"node {place.source} does not hold {mib} MiB: {victim.pages_by_node()}")
        time.sleep(SETTLE_SECONDS)
        victim.lap()
        began = time.monotonic()
        moved = MOVES[name](victim, place)
        seconds = time.monotonic() - began
        by_node = victim.pages_by_node()
        victim.finish()
    return Run(
        name=name,
        seconds=seconds if moved.seconds is None else moved.seconds,
        arrived_ratio=by_node[place.target] / victim.pages,
        left_ratio=1 - by_node[place.source] / victim.pages,
        lap=moved.lap,
        more=moved.more,
    )


def in_turn(names: list[str], number: int) -> list[str]:
    """Return the order of one round: each begins with another one."""
    first = number % len(names)
    return names[first:] + names[:first]


def main() -> int:
    """Run the comparison; 0 unless a tool is missing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=MOVES, default=list(MOVES), metavar="NAME")
    given = parser.parse_args()
    missing = [tool for tool in ("migratepages", "numad") if tool in given.only and shutil.which(tool) is None]
    if missing:
        print(f"not installed: {', '.join(missing)}", file=sys.stderr)
        return 1
    place = find_place()
    os.sched_setaffinity(0, {place.mover_cpu})  # of what is started here, too
    runs: list[Run] = []
    with tempfile.TemporaryDirectory() as folder:
        program = build(Path(folder))
        with beat(program, place.beat_cpu, BEAT_MICROSECONDS):
            for number in range(given.rounds):
                for name in in_turn(given.only, number):
                    runs.append(run(name, program, given.mib, place))
                    print(json.dumps(as_json(runs[-1])), flush=True)
                tell(runs, given.only, given.mib)
    return 0


if __name__ == "__main__":
    sys.exit(main())
