"""python -m tests.bench.recall.inside PROGRAM... --seconds N: the benchmark's one command inside the guest.

Owns the order of things: start a program, watch it in each of the ways, with a marker before and after each, end it,
and go on to the next. The answers are OUT/recall-PROGRAM.json: "kernel", "error" (null, or what went wrong), and
"ways", each in the shape of watching.py. This process keeps to the house-keeping CPU, programs to the first CPU of each
node.
"""

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.locality.inside import OUT, choose_cpus, read_cpus
from tests.bench.locality.plan import Plan
from tests.bench.recall.programs import PROGRAMS, Program
from tests.bench.recall.watching import WAYS, watch
from tests.lab.oracle import mark

WARM_UP_SECONDS = 2.0
BALANCING = Path("/proc/sys/kernel/numa_balancing")


def marks_of(program: str, way: str) -> tuple[int, int]:
    """Return the numbers of the markers before and after watching a program in one of the WAYS."""
    first = 1 + 2 * (list(PROGRAMS).index(program) * len(WAYS) + WAYS.index(way))
    return first, first + 1


def answer_of(folder: Path, program: str) -> Path:
    """Where the answer of a program is, once there is one."""
    return folder / f"recall-{program}.json"


def rest(pid: int, number: int) -> None:
    """Mark the end of a window. From then on the program stands still: emulated, all else is slow enough."""
    mark(number)
    os.kill(pid, signal.SIGSTOP)


def measure(program: Program, plan: Plan, seconds: float, result: dict[str, Any]) -> None:
    """Run a program, and put into `result` what each way of sampling told of it."""
    if BALANCING.read_text(encoding="ascii").strip() != "0":
        raise RuntimeError("the kernel's balancing is on")
    with program.run(plan) as pid:
        time.sleep(WARM_UP_SECONDS)
        for way in WAYS:
            before, after = marks_of(program.name, way)
            mark(before)
            result["ways"][way] = watch(pid, seconds, way, partial(rest, pid, after))
            os.kill(pid, signal.SIGCONT)


def run(program: Program, seconds: float, cpus: Mapping[int, int]) -> dict[str, Any]:
    """Measure a program; returns the answer, with `error` when it failed."""
    result: dict[str, Any] = {"kernel": platform.release(), "error": None, "ways": {}}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # some programs refuse to be root
        plan = Plan(work=1, mib=program.mib, is_bound=True, cpus=cpus, folder=Path(folder))
        try:
            measure(program, plan, seconds, result)
        except Exception as error:  # noqa: BLE001 whatever it was, outside they must read of it
            traceback.print_exc()
            result["error"] = f"{type(error).__name__}: {error}"
    return result


def main(arguments: list[str] | None = None) -> int:
    """Watch programs, one after the other; 0 when all went well."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.recall.inside")
    parser.add_argument("programs", choices=PROGRAMS, metavar="PROGRAM", nargs="+")
    parser.add_argument("--seconds", type=float, required=True)
    given = parser.parse_args(arguments)
    house_cpu, cpus = choose_cpus(read_cpus())
    os.sched_setaffinity(0, {house_cpu})  # of all that is started here, too; programs choose their own
    is_well = True
    for name in given.programs:
        result = run(PROGRAMS[name], given.seconds, cpus)
        is_well &= result["error"] is None
        partial_answer = OUT / "partial"
        partial_answer.write_text(json.dumps(result) + "\n", encoding="utf-8")
        partial_answer.rename(answer_of(OUT, name))
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
