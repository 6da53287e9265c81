"""One workload under one rival, and all that the guest can tell of it; the oracle outside counts the accesses.

Owns the order of things: start the rival and the workload, look, let it work between the markers, look again, end.
Must not know where the result goes, nor what figures are made of it.

The result (times are seconds of CLOCK_MONOTONIC):

    workload, rival, work, mib, kernel (its release), house_cpu, cpus {node: cpu}
    error       null, or what went wrong; then keys below may be missing.
    marks       {"1", "2", "3": seconds}
    gaps        {thread: {n, p99_ns, p999_ns, longest_ns}}
    vmstat      {counter: how much it grew from mark 1 to mark 3}
    pages       {moved_bytes, moved_once_bytes, moved_twice_bytes, looked_bytes, kept_bytes,
                before_bytes {node: n}, after_bytes {node: n}}: see pages.py
    affinity    {pid: {before, after: the CPUs that its threads may use, each kind once}}
    daemon      null when the rival has none, else {cpu_seconds (from mark 1 to mark 3), cpu_seconds_before (mark 1),
                rss_mib (the peak), moves [see logs.Move], lines [of its log], lines_left_out}, and of balancerd also
                accounts {ticks, failed_ticks, moved_bytes, submitted_pages, pages {status: n}},
                managers {name: yields}, reasons [{at, pid, reason, detail}], processes {pid: what explain says},
                settings
    finish      what the workload said at its end
"""

import os
import platform
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.bench.locality import pages, rivals
from tests.bench.locality.plan import BEGIN, DONE, Plan, Running, Workload
from tests.bench.victim import Gaps
from tests.bench.watchers import cpu_seconds, peak_rss_mib

COUNTERS = ("pgmigrate_", "numa_pages_migrated", "numa_hint_faults", "numa_pte_updates", "thp_migration_")
"""What the counters of /proc/vmstat begin with that tell of moves, or of the kernel's balancing."""

SETTLE_SECONDS = 6.0
"""Before the work begins: looking at all pages takes the house-keeper for seconds here, and until it is over no daemon
has seen the processes for as long as those that it is made for are there. More than numad's interval."""

Marker = Callable[[int], None]


class Marks:
    """Executes the markers, notes when, and reads at the first and the last what is to be compared.

    What it reads itself is outside of what it marks. `begin` is called right before the first.
    """

    def __init__(self, marker: Marker, daemon: rivals.Daemon | None, begin: Callable[[], object]) -> None:
        self.at: dict[int, float] = {}
        self.vmstat: dict[int, Mapping[str, int]] = {}
        self.cpu_seconds: dict[int, float] = {}
        self._marker = marker
        self._daemon = daemon
        self._begin = begin

    def __call__(self, number: int) -> None:
        if number == BEGIN:
            self._read(number)
            self._begin()
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
        "rss_mib": round(peak_rss_mib(daemon.pid), 1),
        **daemon.tell(pids),
    }


def measure(running: Running, marks: Marks, daemon: rivals.Daemon | None, result: dict[str, Any]) -> None:
    """Let a workload that has been started work, look at everything before and after, and put it into `result`."""
    affinity = read_affinity(running.pids)
    before = pages.locate(pages.read_spans(running.pids))
    time.sleep(SETTLE_SECONDS)
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
    result["finish"] = running.finish()


def run(
    workload: Workload,
    rival: rivals.Rival,
    plan: Plan,
    *,
    house_cpu: int,
    marker: Marker,
    balancing: Path = rivals.BALANCING,
) -> dict[str, Any]:
    """Run a workload under a rival; returns the result, with `error` when it failed."""
    result: dict[str, Any] = {
        "workload": workload.name,
        "rival": rival.name,
        "work": plan.work,
        "mib": plan.mib,
        "kernel": platform.release(),
        "house_cpu": house_cpu,
        "cpus": {str(node): cpu for node, cpu in plan.cpus.items()},
        "error": None,
    }
    try:
        with (
            rivals.kernel_balancing(rival, balancing) as begin,
            rivals.at_work(rival, plan.folder / "rival", house_cpu) as daemon,
            workload.start(plan) as running,
        ):
            measure(running, Marks(marker, daemon, begin), daemon, result)
    except Exception as error:  # noqa: BLE001 whatever it was, outside they must read of it
        traceback.print_exc()
        result["error"] = f"{type(error).__name__}: {error}"
    return result
