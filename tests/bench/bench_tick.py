"""What a whole tick of the daemon costs, on a crowd of processes, beside others who watch them.

    python -m tests.bench.bench_tick tick [--processes 1000] [--threads 5000] [--rounds 5]
    python -m tests.bench.bench_tick growth [--sizes 100 300 1000 3000 5000]
    python -m tests.bench.bench_tick memory [--processes 5000]
    python -m tests.bench.bench_tick budget [--seconds 600]        a minute at least

tick      CPU time per pass of the daemon, in observe mode; of psutil reading the same; of numad where it is installed
          and there are several nodes, as in the lab; of pidstat, and of numastat on the busy ones. The daemon's is
          all that its process used from the end of one tick to the end of a later one, by the ticks between. In each
          round everyone passes, the others while the daemon waits; numad at its own time; pidstat and numastat with
          the start of their programs. Aim: 5 times less than psutil, and less than numad
growth    the daemon's CPU time per tick as processes, threads, large and busy ones all grow alike. Aim: the CPU time
          per process falls or stays (within a tenth)
memory    peak RSS of the daemon, also when it has told of all processes. Aim: 60 MiB
budget    the share of one core that the daemon used, by minute, beside select.scan_budget, all settings at their
          defaults. Fails when the whole time's share is over it by more than a tenth

The busy ones use 1 % of a core each; so that this counts, and at once, all parts but the last set select.min_cpu and
select.min_age low, and select.scan_budget so high that every tick comes in time and looks at all that is due. On a
machine that is loaded the busy ones do not get on, and the bench says so and ends.

With --alone the bench has a PID namespace of its own, in which only the crowd and the watchers are seen; needs root.
--profile FILE runs the daemon under a profiler, writes the statistics and prints those who took most time; the figures
then hold the profiler's cost. Each part prints a table, then one line of JSON, and ends with 1 when its aim is missed.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from balancerd.config.schema import Config
from balancerd.control.client import ControlClient
from tests.bench import watchers
from tests.bench.bench_native import Row, print_table
from tests.bench.crowd import Shape, build, crowd
from tests.bench.profiled import print_top
from tests.bench.watchers import Balancerd, Passes, balancerd

PSUTIL_RATIO = 5.0
MEMORY_MIB = 60.0
TOLERANCE = 1.1
TICKS_A_ROUND = 5
FIRST_TICKS = slice(1, 6)
"""Those behind the start: everything is new to them."""

DEFAULTS = Config()

EAGER_CORES = 0.002
EAGER_SETTINGS = (f"select.min_cpu={EAGER_CORES}", "select.min_age=1s", "select.scan_budget=100%")
"""Whoever runs at all is worth a look, soon: this machine can keep many busy only a little."""
SETTLED_SECONDS = 20.0
SETTLED_TICKS = 10
ALONE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-m", "tests.bench.bench_tick")

RIVALS = ("psutil", "pidstat -t", "pidstat", "numastat")
Rival = Callable[[], float]


def spread(seconds: Sequence[float]) -> Row:
    """Median and range of CPU times in milliseconds."""
    return {
        "passes": len(seconds),
        "CPU ms": round(1000 * statistics.median(seconds), 2),
        "least": round(1000 * min(seconds), 2),
        "most": round(1000 * max(seconds), 2),
    }


def count_processes() -> int:
    return sum(entry.name.isdigit() for entry in Path("/proc").iterdir())


def measure(daemon: Balancerd, rounds: int, rivals: Mapping[str, Rival]) -> dict[str, list[float]]:
    """Run the rounds; gives CPU seconds per pass for the daemon and for each of the others, who begin in turn."""
    cpu: dict[str, list[float]] = {name: [] for name in ("balancerd", *rivals)}
    for turn in range(rounds):
        daemon.catch_up()
        daemon.run_ticks(TICKS_A_ROUND)
        cpu["balancerd"].append(statistics.fmean(daemon.ticks[-TICKS_A_ROUND:]))
        names = list(rivals)
        for name in names[turn % max(1, len(names)) :] + names[: turn % max(1, len(names))]:
            cpu[name].append(rivals[name]())
    return cpu


def find_rivals(stack: ExitStack, wanted: Sequence[str], busy: Sequence[int]) -> dict[str, Rival]:
    """Start those who watch on request, as far as they are wanted and installed."""
    rivals: dict[str, Rival] = {}
    if "psutil" in wanted:
        watcher = stack.enter_context(watchers.psutil(DEFAULTS.select.min_rss_bytes, EAGER_CORES))
        rivals["psutil"] = lambda: float(watcher.one_pass()["cpu_seconds"])
    commands = {
        "pidstat -t": ("pidstat", "sysstat", ["-t"]),
        "pidstat": ("pidstat", "sysstat", []),
        "numastat": ("numastat", "numactl", ["-p", *map(str, busy)]),
    }
    for name, (program, package, arguments) in commands.items():
        if name not in wanted:
            continue
        path = watchers.find_tool(program, package)
        if path is None:
            print(f"{program} is not installed: apt-get install {package}", file=sys.stderr)
            continue
        rivals[name] = lambda command=(path, *arguments): watchers.command_pass(command)  # type: ignore[misc]
    return rivals


def start_numad(stack: ExitStack) -> Passes | None:
    """Start numad where it looks at processes at all."""
    if len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) < 2:
        print("numad looks at nothing on a machine with one node", file=sys.stderr)
        return None
    path = watchers.find_tool("numad", "numad")
    if path is None:
        print("numad is not installed: apt-get install numad", file=sys.stderr)
        return None
    return Passes(stack.enter_context(watchers.numad(path)))


def tick(given: argparse.Namespace, shape: Shape, program: Path, folder: Path) -> int:
    with ExitStack() as stack:
        busy = stack.enter_context(crowd(program, shape))
        numad = start_numad(stack)
        daemon = stack.enter_context(balancerd(folder, EAGER_SETTINGS, given.profile))
        rivals = find_rivals(stack, given.rivals, busy)
        if numad is not None:
            daemon.while_waiting = numad.poll
        daemon.run_for(given.settle, SETTLED_TICKS)
        check_seen(daemon, shape)
        begin_profile(daemon, given)
        cpu = measure(daemon, given.rounds, rivals)
        watched = count_processes()
        seen = worth_a_look(daemon)
        psutil_saw = stack.enter_context(watchers.psutil(0, 0.0)).one_pass()
        cpu["balancerd, first ticks"] = daemon.ticks[FIRST_TICKS]
    if numad is not None:
        cpu["numad"] = numad.cpu
    ours = statistics.median(cpu["balancerd"])
    rows: list[Row] = [
        {
            "watcher": name,
            **spread(seconds),
            "us a process": round(1e6 * statistics.median(seconds) / watched, 2),
            "times ours": round(statistics.median(seconds) / ours, 2),
        }
        for name, seconds in cpu.items()
        if seconds
    ]
    print(f"{watched} processes and {psutil_saw['threads']} threads; the daemon found {seen} worth a look")
    print_table(rows)
    ratios = {name: statistics.median(seconds) / ours for name, seconds in cpu.items() if seconds}
    aims = {"psutil": PSUTIL_RATIO, "numad": 1.0}
    missed = [
        f"{name} takes {ratios[name]:.2f} times as much" for name in aims if ratios.get(name, math.inf) < aims[name]
    ]
    if not aims.keys() & ratios.keys():
        print("nobody was there whom an aim names")
    return finish("tick", given, shape, missed, rows=rows, watched=watched)


def growth(given: argparse.Namespace, shape: Shape, program: Path, folder: Path) -> int:
    rows: list[Row] = []
    for size in given.sizes:
        part = size / shape.processes
        grown = Shape(
            processes=size,
            threads=round(shape.threads * part),
            large=max(1, round(shape.large * part)),
            busy=max(1, round(shape.busy * part)),
            mib=shape.mib,
            percent=shape.percent,
        )
        with crowd(program, grown), balancerd(folder, EAGER_SETTINGS, given.profile) as daemon:
            daemon.run_for(given.settle, SETTLED_TICKS)
            check_seen(daemon, grown)
            begin_profile(daemon, given)
            seconds = measure(daemon, given.rounds, {})["balancerd"]
            watched = count_processes()
            rows.append(
                {
                    "processes": watched,
                    "threads": grown.threads,
                    "worth a look": worth_a_look(daemon),
                    **spread(seconds),
                    "us a process": round(1e6 * statistics.median(seconds) / watched, 2),
                    "first ticks ms": round(1000 * statistics.median(daemon.ticks[FIRST_TICKS]), 2),
                    "peak RSS MiB": round(watchers.peak_rss_mib(daemon.pid), 1),
                }
            )
    print_table(rows)
    costs = [float(row["us a process"]) for row in rows]
    missed = (
        [f"{costs[-1]} us a process at the end, {costs[0]} at the beginning"]
        if costs[-1] > TOLERANCE * costs[0]
        else []
    )
    return finish("growth", given, shape, missed, rows=rows)


def memory(given: argparse.Namespace, shape: Shape, program: Path, folder: Path) -> int:
    listen = f"127.0.0.1:{watchers.free_port()}"
    rows: list[Row] = []
    with (
        crowd(program, shape),
        balancerd(folder, (*EAGER_SETTINGS, f"metrics.listen={listen}"), given.profile) as daemon,
    ):

        def note(when: str) -> None:
            rows.append({"until": when, "peak RSS MiB": round(watchers.peak_rss_mib(daemon.pid), 1)})

        daemon.next_tick()
        note("the first tick")
        begin_profile(daemon, given)
        daemon.run_for(given.settle, SETTLED_TICKS)
        check_seen(daemon, shape)
        note("everyone was looked at")
        for _ in range(given.rounds):
            with urllib.request.urlopen(f"http://{listen}/metrics") as answer:
                answer.read()
            ControlClient(daemon.socket).get("/v1/processes")
            daemon.catch_up()
        note("metrics and processes were asked for")
    print_table(rows)
    peak = float(rows[-1]["peak RSS MiB"])
    missed = [f"{peak} MiB"] if peak > MEMORY_MIB else []
    return finish("memory", given, shape, missed, rows=rows)


def budget(given: argparse.Namespace, shape: Shape, program: Path, folder: Path) -> int:
    allowed = DEFAULTS.select.scan_budget_ratio
    rows: list[Row] = []
    with crowd(program, shape), balancerd(folder, profile=given.profile) as daemon:
        daemon.next_tick()
        started = watchers.cpu_seconds(daemon.pid)
        begin_profile(daemon, given)
        begin = time.monotonic()
        n_ticks, cpu, at = len(daemon.ticks), started, begin
        while at - begin < given.seconds:
            daemon.run_for(min(60.0, begin + given.seconds - at))
            cpu_before, at_before = cpu, at
            cpu, at = watchers.cpu_seconds(daemon.pid), time.monotonic()
            rows.append(
                {
                    "until s": round(at - begin),
                    "ticks": len(daemon.ticks) - n_ticks,
                    "worth a look": worth_a_look(daemon),
                    "CPU ms": round(1000 * (cpu - cpu_before), 1),
                    "share of a core": f"{(cpu - cpu_before) / (at - at_before):.3%}",
                }
            )
            n_ticks = len(daemon.ticks)
        check_seen(daemon, shape)
        share = (cpu - started) / (at - begin)
    print_table(rows)
    print(f"in all {share:.3%} of a core, allowed {allowed:.3%}; the start took {started:.2f} s of CPU")
    missed = [f"{share / allowed:.2f} times the budget"] if share > TOLERANCE * allowed else []
    return finish("budget", given, shape, missed, rows=rows, share=share, allowed=allowed, start_cpu_seconds=started)


def worth_a_look(daemon: Balancerd) -> int:
    """How many processes a tick found worth a look lately: on a loaded machine the busy ones do not always get on."""
    return round(statistics.median(int(line["eligible"]) for line in daemon.lines[-TICKS_A_ROUND:]))


def check_seen(daemon: Balancerd, shape: Shape) -> None:
    """Raise RuntimeError when the daemon has not seen what there is: then its cost means nothing."""
    surveyed, eligible = (max(line[key] for line in daemon.lines) for key in ("surveyed", "eligible"))
    if surveyed < shape.large or eligible < shape.busy:
        raise RuntimeError(
            f"of {shape.large} large, {shape.busy} busy ones the daemon saw {surveyed} and {eligible} at most; "
            "on a loaded machine the busy ones do not get on"
        )


def begin_profile(daemon: Balancerd, given: argparse.Namespace) -> None:
    if given.profile is not None:
        daemon.begin_profile()


def finish(part: str, given: argparse.Namespace, shape: Shape, missed: Sequence[str], **told: object) -> int:
    """Print what was missed, the profile and the line of JSON; gives the exit status."""
    print("no aim was missed" if not missed else f"aim missed: {'; '.join(missed)}")
    if given.profile is not None:
        print_top(given.profile)
    crowd_of = {name: getattr(shape, name) for name in ("processes", "threads", "large", "busy", "mib", "percent")}
    print(json.dumps({"bench": part, "rounds": given.rounds, "crowd": crowd_of, "missed": list(missed), **told}))
    return 1 if missed else 0


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="part", required=True)
    parts: dict[str, Callable[[argparse.Namespace, Shape, Path, Path], int]] = {
        "tick": tick,
        "growth": growth,
        "memory": memory,
        "budget": budget,
    }
    for name in parts:
        verb = verbs.add_parser(name)
        processes = 5000 if name == "memory" else 1000
        verb.add_argument("--processes", type=int, default=processes)
        verb.add_argument("--threads", type=int, default=None, help="in all; default: five times as many")
        verb.add_argument("--large", type=int, default=None, help="of them large; default: a twentieth")
        verb.add_argument("--busy", type=int, default=10, help="of the large ones busy")
        verb.add_argument("--mib", type=int, default=80, help="how large")
        verb.add_argument("--percent", type=int, default=8 if name == "budget" else 1, help="how busy")
        verb.add_argument("--rounds", type=int, default=5)
        verb.add_argument("--settle", type=float, default=SETTLED_SECONDS, help="let the daemon run so long first")
        verb.add_argument("--profile", type=Path, metavar="FILE", help="write a profile of the daemon's main thread")
        verb.add_argument("--alone", action="store_true", help="in a PID namespace of its own; needs root")
    verbs.choices["tick"].add_argument("--rivals", choices=RIVALS, nargs="*", default=RIVALS, help="beside numad")
    verbs.choices["growth"].add_argument("--sizes", type=int, nargs="+", default=[100, 300, 1000, 3000, 5000])
    verbs.choices["budget"].add_argument("--seconds", type=float, default=600.0)
    given = parser.parse_args(arguments)
    if given.alone:
        return subprocess.run([*ALONE, *(word for word in arguments if word != "--alone")], check=False).returncode
    shape = Shape(
        processes=given.processes,
        threads=given.threads or 5 * given.processes,
        large=given.large or max(1, given.processes // 20, given.busy),
        busy=given.busy,
        mib=given.mib,
        percent=given.percent,
    )
    with tempfile.TemporaryDirectory() as folder:
        return parts[given.part](given, shape, build(Path(folder)), Path(folder))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
