"""What a survey costs: ours beside psutil reading the same, and beside a bare C loop that does what numad's pass does.

    python -m tests.bench.bench_survey [--processes 1000,5000] [--busy 20] [--threads 50] [--passes 10] [--seconds 2]

A tenth of the processes is large, so many of them busy with so many threads each, the rest small. One of each pass is
made every few seconds, turn by turn, so that what disturbs one disturbs all; our clock goes on by these seconds from
pass to pass, so that as much is due as if the machine had nothing else to do. CPU time is user and system time of
getrusage(2). psutil reads name, start, CPU times, memory and number of threads of every process, and the threads of the
busy ones; the C loop opens, reads, scans and closes the stat of every process. "first" is our first pass, which reads
all. "Python KiB" is the most that one pass had allocated at a time; "peak RSS" is that of a Python with nothing but our
own imports. As root, it runs in a PID namespace of its own, where nobody else's processes are seen. Prints a table,
then one line of JSON.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from balancerd import native
from balancerd.kernel.clock import boottime_seconds
from balancerd.kernel.processes.descriptors import raise_descriptor_limit
from balancerd.kernel.processes.process_files import ProcessFiles
from balancerd.kernel.processes.survey import Surveyor
from balancerd.model.ids import CpuId, NodeId
from balancerd.model.sample import Survey
from balancerd.model.topology import Node, Topology
from balancerd.ports import SurveyScope

HERE = Path(__file__).parent
SCOPE = SurveyScope(min_rss_bytes=3 << 20, min_cpu_cores=0.01)
CPUS = {CpuId(cpu): NodeId(0) for cpu in range(4096)}
TOPOLOGY = Topology(
    nodes=(Node(id=NodeId(0), cpus=frozenset(CPUS), total_bytes=1 << 40, distances={NodeId(0): 10}),),
    node_of_cpu=CPUS,
)

Row = dict[str, float | int]


class Steps:
    """A clock that goes so many seconds from pass to pass, however long they take on a machine with other work."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._now = 1000.0

    def now(self) -> float:
        """Return the time of the next pass."""
        self._now += self._seconds
        return self._now

    def cpu_seconds(self) -> float:
        """Return nothing that is of interest here."""
        return 0.0

    def wait_until(self, deadline: float) -> None:
        """Wait for nobody."""


def main() -> int:
    """Run the comparison; 1 when ours is not below the C loop, or less than five times below psutil."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", default="1000,5000")
    parser.add_argument("--busy", type=int, default=20)
    parser.add_argument("--threads", type=int, default=50)
    parser.add_argument("--passes", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.0)
    given = parser.parse_args()
    if os.geteuid() == 0 and os.getpid() != 1:
        alone = ["unshare", "--pid", "--mount", "--fork", "--mount-proc", "--kill-child"]
        return subprocess.run(
            [*alone, sys.executable, "-m", "tests.bench.bench_survey", *sys.argv[1:]], check=False
        ).returncode
    raise_descriptor_limit()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        herd, loop = (compiled(name, folder) for name in ("herd", "stat_pass"))
        for processes in map(int, given.processes.split(",")):
            large = processes // 10
            busy = min(given.busy, large)
            with running(herd, processes - large, large - busy, busy, given.threads):
                rows.append(measure(processes, loop, given.passes, given.seconds))
    print("".join(f"{name:>14}" for name in rows[0]))
    for row in rows:
        print("".join(f"{value:14.2f}" if isinstance(value, float) else f"{value:14}" for value in row.values()))
    print(json.dumps({"bench": "survey", "busy": given.busy, "threads": given.threads, "rows": rows}))
    return int(any(row["ours/C loop"] >= 1 or row["psutil/ours"] < 5 for row in rows))


def measure(processes: int, loop: str, passes: int, seconds: float) -> Row:
    """Make so many passes of each kind."""
    files = ProcessFiles()
    surveyor = Surveyor(native, files, Steps(seconds), boottime_seconds)
    surveys: list[Survey] = []

    def survey() -> None:
        surveys.append(surveyor.survey(SCOPE, TOPOLOGY, {}))

    first = cpu_ms(survey)
    for _ in range(int(12 / seconds)):  # until every process has had its turn
        time.sleep(seconds)
        survey()
    peak_rss_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    ours: list[float] = []
    psutils: list[float] = []
    c_loop: list[float] = []
    psutil_pass = make_psutil_pass(lambda: [p.id.pid for p in surveys[-1].processes if p.run_seconds is not None])
    with subprocess.Popen([loop], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        for _ in range(passes):
            time.sleep(seconds)
            ours.append(cpu_ms(survey))
            psutils.append(cpu_ms(psutil_pass))
            other.stdin.write("\n")
            other.stdin.flush()
            c_loop.append(float(other.stdout.readline()) / 1000)
    python_kib = []
    tracemalloc.start()
    for _ in range(3):
        time.sleep(seconds)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        survey()
        python_kib.append((tracemalloc.get_traced_memory()[1] - before) / 1024)
    tracemalloc.stop()
    surveyor.close()
    files.close()
    mine, theirs, bare = (statistics.median(values) for values in (ours, psutils, c_loop))
    last = surveys[-1]
    return {
        "processes": processes,
        "large": len(last.processes),
        "loud": sum(process.run_seconds is not None for process in last.processes),
        "read": round(statistics.mean(survey.read_processes for survey in surveys[-passes:])),
        "first ms": first,
        "ours ms": mine,
        "C loop ms": bare,
        "psutil ms": theirs,
        "ours/C loop": mine / bare,
        "psutil/ours": theirs / mine,
        "us/process": 1000 * mine / processes,
        "Python KiB": statistics.median(python_kib),
        "peak RSS MiB": peak_rss_mib,
    }


def make_psutil_pass(busy: Callable[[], list[int]]) -> Callable[[], None]:
    """Return a pass of psutil over the same facts; imported only now, for the peak RSS."""
    import psutil

    def psutil_pass() -> None:
        pids = set(busy())
        for process in psutil.process_iter():
            try:
                with process.oneshot():
                    process.name()
                    process.create_time()
                    process.cpu_times()
                    process.memory_info()
                    process.num_threads()
                    process.cpu_num()
                    if process.pid in pids:
                        process.threads()
            except psutil.NoSuchProcess:
                continue

    return psutil_pass


def cpu_ms(function: Callable[[], None]) -> float:
    """Milliseconds of user and system time."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    function()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def compiled(name: str, folder: str) -> str:
    """Compile a C source that lies beside this file."""
    program = f"{folder}/{name}"
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused-result", "-pthread"]
    subprocess.run(["cc", *flags, str(HERE / f"{name}.c"), "-o", program], check=True)
    return program


@contextmanager
def running(herd: str, small: int, large: int, busy: int, threads: int) -> Iterator[None]:
    """Have so many processes of each kind."""
    arguments = [herd, *map(str, (small, large, busy, threads))]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("not so many processes can be started")
        time.sleep(1)
        yield
        process.communicate()


if __name__ == "__main__":
    sys.exit(main())
