"""python -m tests.bench.locality.inside WORKLOAD RIVAL --work N: one workload under one rival, measured; in the guest.

Owns the order of things inside: keep to the house-keeping CPU, start the rival, start the workload, let it work, look,
end it, write the result. The oracle outside counts the accesses between the markers. Must not know what figures mean.

The house-keeping CPU is the machine's last one: the workload uses the first other CPU of each node. Where there is none
to spare, a workload shares it, which is good enough to try things out.

The result, OUT/result.json (nothing that is not known has a key with a number; times in seconds are CLOCK_MONOTONIC):

    workload, rival, work, mib, release, house_cpu, cpus {node: cpu}
    error       null, or what went wrong; then keys below may be missing. The exit status is 1
    marks       {"1", "2", "3": seconds}
    gaps        {thread: {n, p99_ns, p999_ns, longest_ns}}
    vmstat      {counter: how much it grew from mark 1 to mark 3}
    pages       {moved_bytes, moved_once_bytes, moved_twice_bytes, looked_bytes, kept_bytes,
                before_bytes {node: n}, after_bytes {node: n}}: see pages.py
    affinity    {pid: {before, after: the CPUs that its threads may use, each kind once}}
    daemon      null when the rival has none, else {cpu_seconds (from mark 1 to mark 3), cpu_seconds_before (mark 1),
                peak_rss_mib, moves [see logs.Move], lines [of its log], lines_left_out}, and of balancerd also
                accounts {ticks, failed_ticks, moved_bytes, submitted_pages, pages {status: n}},
                managers {name: yields}, reasons [{at, pid, reason, detail}], processes {pid: what explain says},
                settings
    told        what the workload said at its end
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.bench.locality import pages, rivals
from tests.bench.locality.plan import BEGIN, DONE, Plan, Running, Workload
from tests.bench.victim import Gaps
from tests.bench.watchers import cpu_seconds, peak_rss_mib

OUT = Path("/run/lab/out")
NODES = Path("/sys/devices/system/node")
COUNTERS = ("pgmigrate_", "numa_pages_migrated", "numa_hint_faults", "numa_pte_updates", "thp_migration_")
"""What the counters of /proc/vmstat begin with that tell of moves, or of the kernel's balancing."""

Marker = Callable[[int], None]


class Marks:
    """Executes the markers, notes when, and reads at the first and the last what is to be compared.

    What it reads itself is outside of what it marks.
    """

    def __init__(self, marker: Marker, daemon: rivals.Daemon | None) -> None:
        self.at: dict[int, float] = {}
        self.vmstat: dict[int, Mapping[str, int]] = {}
        self.cpu_seconds: dict[int, float] = {}
        self._marker = marker
        self._daemon = daemon

    def __call__(self, number: int) -> None:
        if number == BEGIN:
            self._read(number)
        self._marker(number)
        self.at[number] = time.monotonic()
        if number == DONE:
            self._read(number)

    def _read(self, number: int) -> None:
        self.vmstat[number] = read_vmstat()
        if self._daemon is not None:
            self.cpu_seconds[number] = cpu_seconds(self._daemon.pid)


def parse_vmstat(text: str) -> dict[str, int]:
    """Return the COUNTERS of /proc/vmstat; a kernel that does not have one does not tell it."""
    pairs = (line.split() for line in text.splitlines() if line.startswith(COUNTERS))
    return {name: int(value) for name, value in pairs}


def read_vmstat() -> dict[str, int]:
    return parse_vmstat(Path("/proc/vmstat").read_text(encoding="ascii"))


def choose_cpus(cpus_of_node: Mapping[int, Iterable[int]]) -> tuple[int, dict[int, int]]:
    """Return the house-keeping CPU, the last one, and for each node with CPUs the first that workloads can use."""
    by_node = {node: sorted(cpus) for node, cpus in sorted(cpus_of_node.items())}
    house_cpu = max(cpu for cpus in by_node.values() for cpu in cpus)
    return house_cpu, {node: cpus[0] for node, cpus in by_node.items() if cpus}


def read_cpus() -> dict[int, list[int]]:
    """Return the CPUs of each node."""
    folders = NODES.glob("node[0-9]*")
    return {int(node.name[4:]): [int(link.name[3:]) for link in node.glob("cpu[0-9]*")] for node in folders}


def tell_gaps(gaps: Mapping[str, Gaps]) -> dict[str, dict[str, int]]:
    return {
        thread: {
            "n": each.n,
            "p99_ns": each.percentile_ns(0.99),
            "p999_ns": each.percentile_ns(0.999),
            "longest_ns": each.longest_ns,
        }
        for thread, each in gaps.items()
    }


def tell_pages(account: pages.PageAccount, migrated_pages: int) -> dict[str, object]:
    return {
        **pages.moved_bytes(account, migrated_pages),
        "looked_bytes": account.looked_pages * pages.PAGE_BYTES,
        "kept_bytes": account.kept_pages * pages.PAGE_BYTES,
        "before_bytes": {str(node): n * pages.PAGE_BYTES for node, n in account.before_by_node.items()},
        "after_bytes": {str(node): n * pages.PAGE_BYTES for node, n in account.after_by_node.items()},
    }


def read_affinity(pids: Iterable[int]) -> dict[str, list[str]]:
    """Return on which CPUs the threads of each process may run, each kind once; who has ended is left out."""
    found: dict[str, list[str]] = {}
    for pid in pids:
        try:
            tasks = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
            kinds = {",".join(map(str, sorted(os.sched_getaffinity(task)))) for task in tasks}
        except (FileNotFoundError, ProcessLookupError):
            continue
        found[str(pid)] = sorted(kinds)
    return found


def tell_daemon(daemon: rivals.Daemon | None, marks: Marks, pids: Iterable[int]) -> dict[str, Any] | None:
    if daemon is None:
        return None
    return {
        "cpu_seconds": round(marks.cpu_seconds[DONE] - marks.cpu_seconds[BEGIN], 3),
        "cpu_seconds_before": round(marks.cpu_seconds[BEGIN], 3),
        "peak_rss_mib": round(peak_rss_mib(daemon.pid), 1),
        **daemon.tell(pids),
    }


def measure(running: Running, marks: Marks, daemon: rivals.Daemon | None, result: dict[str, Any]) -> None:
    """Let a workload that has been started work, look at everything before and after, and put it into `result`."""
    affinity = read_affinity(running.pids)
    before = pages.locate(pages.read_spans(running.pids))
    running.work(marks)
    after = pages.locate(placed.span for placed in before)
    grown = {name: value - marks.vmstat[BEGIN][name] for name, value in marks.vmstat[DONE].items()}
    result["marks"] = {str(number): round(at, 6) for number, at in marks.at.items()}
    result["gaps"] = tell_gaps(running.gaps)
    result["vmstat"] = grown
    result["pages"] = tell_pages(pages.account(before, after), grown["pgmigrate_success"])
    later = read_affinity(running.pids)
    result["affinity"] = {pid: {"before": cpus, "after": later.get(pid)} for pid, cpus in affinity.items()}
    result["daemon"] = tell_daemon(daemon, marks, running.pids)
    result["told"] = running.finish()


def run(workload: Workload, rival: rivals.Rival, *, work: int, mib: int, marker: Marker) -> dict[str, Any]:
    """Run a workload under a rival; returns the result, with `error` when it failed."""
    house_cpu, cpus = choose_cpus(read_cpus())
    os.sched_setaffinity(0, {house_cpu})  # of all that is started here, too; workloads choose their own
    result: dict[str, Any] = {
        "workload": workload.name,
        "rival": rival.name,
        "work": work,
        "mib": mib,
        "release": platform.release(),
        "house_cpu": house_cpu,
        "cpus": {str(node): cpu for node, cpu in cpus.items()},
        "error": None,
    }
    try:
        with tempfile.TemporaryDirectory() as name:
            scratch = Path(name)
            plan = Plan(work=work, mib=mib, is_bound=rival.is_bound, cpus=cpus, folder=scratch)
            with rivals.at_work(rival, scratch / "rival", house_cpu) as daemon, workload.start(plan) as running:
                measure(running, Marks(marker, daemon), daemon, result)
    except Exception as error:  # noqa: BLE001 whatever it was, outside they must read of it
        traceback.print_exc()
        result["error"] = f"{type(error).__name__}: {error}"
    return result


def main(arguments: list[str] | None = None) -> int:
    """Run one workload under one rival; 0 when all went well."""
    from tests.bench.locality import programs, workloads
    from tests.lab.oracle import mark

    known: dict[str, Workload] = {**workloads.WORKLOADS, **programs.WORKLOADS}
    parser = argparse.ArgumentParser(prog="python -m tests.bench.locality.inside")
    parser.add_argument("workload", choices=known, metavar="WORKLOAD")
    parser.add_argument("rival", choices=rivals.RIVALS, metavar="RIVAL")
    parser.add_argument("--work", type=int, required=True, help="in the workload's own units")
    parser.add_argument("--mib", type=int, help="the memory of each of its processes")
    given = parser.parse_args(arguments)
    workload = known[given.workload]
    mib = workload.mib if given.mib is None else given.mib
    result = run(workload, rivals.RIVALS[given.rival], work=given.work, mib=mib, marker=mark)
    (OUT / "result.json").write_text(json.dumps(result) + "\n", encoding="utf-8")
    return 0 if result["error"] is None else 1


if __name__ == "__main__":
    sys.exit(main())
