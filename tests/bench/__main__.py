"""python -m tests.bench [NAME ...]: the benchmarks, ratios measured side by side in one run; all of them by default.

placement   sampling a process's placement against reading its numa_maps and asking for every page (here, 18 GiB free)
access      counting accesses by page, with a million pages (here)
survey      a pass over all processes beside psutil and beside a bare C loop over their stat (here, as root)
coverage    how often the intervals of sampled placements hold the truth, over random placements (simulated)
dwell       what a process that changes nodes loses under follow-cpu, beside other rules (simulated)
stays       what processes that wander lose under the whole engine and each scheduler, beside nobody (simulated)
start       how long commands take to start beside `python -c pass` (here)
clients     ticks and answers of a daemon that 208 hostile clients besiege, beside a siege elsewhere, and none (here)
trace       a tick that is recorded beside one that is not, on 1,000 processes in memory (here)
simulation  what the default configuration costs in simulated machines beside nothing and the optimum (simulated)
rounds      what the engine takes for a tick with 60 processes on 4 nodes, and 5,000 on 16 (simulated)
large       simulated seconds for one here, of a machine with ten thousand processes (simulated)
load        a crowd of 5,000 processes with 50,000 threads, 60,000 mappings, 100,000 children that exit (here, as root)
soak        half an hour of processes that come home: memory, descriptors, threads and CPU time (in the virtual machine)
hours       what Python has allocated over eight simulated hours in which jobs come and go (simulated)
month       how long a month of ten thousand processes takes, with ticks that wait while nothing changes (simulated)
to-and-fro  whether memory goes to and fro, or anything takes longer, in a thousand scenarios by chance (simulated)
observe     a tick of the daemon beside numad's pass, on 1,000 processes with 5,000 threads (in the virtual machine)
tick        a tick of the daemon beside psutil, pidstat and numastat on as many (here, as root)
growth      the cost of a tick from 100 to 5,000 processes (likewise)
memory      the daemon's peak RSS at 5,000 processes (likewise)
budget      the share of a core that the daemon takes over ten minutes, on 1,000 processes (likewise)
move        our migration steps against a bare C loop over move_pages(2) (in the virtual machine with four nodes)
batch       throughput and the longest call by batch size, and the adaptive batch beside the best fixed one (likewise)
copying     what a copy costs on the target, on the source and on a third node, in accesses (in the virtual machine)
threads     moving with two threads at once against one after the other (likewise, each virtual CPU on its own thread)
timeline    from "its threads are elsewhere" to "its memory has followed", second by second (likewise)
gaps        the longest gaps of threads whose memory moves: by us, migratepages, numad, the kernel's balancer, by nobody
gaps-6.1    the same on a kernel whose migrate_pages(2) holds mmap_lock for the whole copy
locality    how much remote access each rival leaves on each workload, in fresh virtual machines (takes many hours)
recall      how right and how complete register sampling is beside the oracle, by program, in virtual machines
faults      what daemon and workloads survive, fault by fault, with the figures of each (in virtual machines)
report      RESULTS.md and the README's table, from what locality has kept

Each prints a table and a line of JSON. The machine should have nothing else to do. Options go to the last four:
python -m tests.bench locality --workload single --boots 1.
"""

import subprocess
import sys
from collections.abc import Sequence

from tests.bench.watchers import find_tool
from tests.lab.packages import ensure_installed, ensure_tools, unpack
from tests.lab.state import lab_directory

LAB = ("tests.lab", "run", "--topology", "four-nodes", "--", sys.executable, "-m")
LAB_OF_THREADS = (*LAB[:4], "--threads", "multi", *LAB[4:])
LAB_OF_CPU_TIME = (*LAB[:4], "--threads", "counted", *LAB[4:])
LAB_OF_GAPS = (*LAB[:3], "asymmetric-eight", "--kernel-arguments", "skew_tick=1")
COMMANDS: dict[str, tuple[str, ...]] = {
    "placement": ("tests.bench.bench_native", "placement"),
    "access": ("tests.bench.bench_access",),
    "survey": ("tests.bench.bench_survey",),
    "coverage": ("tests.bench.bench_coverage",),
    "dwell": ("tests.bench.bench_dwell",),
    "stays": ("tests.bench.bench_stays",),
    "start": ("tests.bench.bench_start",),
    "clients": ("tests.bench.bench_clients",),
    "trace": ("tests.bench.bench_trace",),
    "simulation": ("tests.bench.bench_simulation", "judge"),
    "rounds": ("tests.bench.bench_simulation", "rounds"),
    "large": ("tests.bench.bench_simulation", "large"),
    "month": ("tests.bench.bench_simulation", "month"),
    "load": ("tests.bench.bench_load",),
    "soak": (*LAB_OF_THREADS, "tests.bench.bench_soak"),
    "hours": ("tests.bench.bench_simulation", "hours"),
    "to-and-fro": ("tests.bench.bench_simulation", "random"),
    "observe": (
        *LAB_OF_CPU_TIME,
        "tests.bench.bench_tick",
        "tick",
        "--rivals",
        "psutil",
        "--large",
        "20",
        "--busy",
        "5",
    ),
    **{part: ("tests.bench.bench_tick", part, "--alone") for part in ("tick", "growth", "memory", "budget")},
    "move": (*LAB, "tests.bench.bench_native", "move"),
    "batch": (*LAB, "tests.bench.bench_batch"),
    "copying": ("tests.bench.bench_copying",),
    "threads": (*LAB_OF_THREADS, "tests.bench.bench_threads"),
    "timeline": (*LAB_OF_THREADS, "tests.bench.bench_timeline"),
    "gaps": (*LAB_OF_GAPS, "--threads", "counted", *LAB[4:], "tests.bench.bench_gaps"),
    "gaps-6.1": (*LAB_OF_GAPS, "--kernel", "6.1", *LAB[4:], "tests.bench.bench_gaps"),
    "locality": ("tests.bench.locality",),
    "recall": ("tests.bench.recall",),
    "faults": ("tests.bench.faults",),
    "report": ("tests.bench.locality.report",),
}
WITH_OPTIONS = ("locality", "recall", "faults", "report")


def main(arguments: Sequence[str]) -> int:
    """Run the named benchmarks one after the other; the worst exit status."""
    if arguments and arguments[0] in WITH_OPTIONS and all(word.startswith("-") for word in arguments[1:2]):
        return _run(arguments[0], arguments[1:])
    unknown = set(arguments) - COMMANDS.keys()
    if unknown:
        print(f"no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    ensure_installed()
    ensure_tools(lab_directory().packages)
    if find_tool("pidstat", "sysstat") is None:
        unpack("sysstat", lab_directory().packages)
    worst = 0
    for name in arguments or COMMANDS:
        print(f"\n== {name}", flush=True)
        worst = max(worst, _run(name))
    return worst


def _run(name: str, options: Sequence[str] = ()) -> int:
    return subprocess.run([sys.executable, "-m", *COMMANDS[name], *options], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
