"""A process that keeps its address space locked harms nobody's tick, and everyone who asks for it is left alone."""

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.lab.service import Balancerd
from tests.lab.workloads import Hog, binary, mib_by_node

pytestmark = [pytest.mark.topology("four-nodes"), pytest.mark.timeout(240)]

MIB = 16
TIMEOUT_SECONDS = 2.0
LOCK_MIB = 1536  # sixteen such locks in turn are some 10 s of an emulated machine, and more where its host is slow
LONGEST_PHASES_SECONDS = 3 * TIMEOUT_SECONDS
SMALL = {"select.min_age": "1s", "select.min_rss": "8MiB", "tick_interval": "1s"}
SCRAPED = "127.0.0.1:9923"
COUNTER = 'balancerd_source_errors_total{error="blocked",source="sample"}'
CGROUPS = Path("/sys/fs/cgroup")


@contextmanager
def locker(*, mib: int, lock_mib: int) -> Iterator[int]:
    """Start locker.c on node 0 with memory on node 2; its pid."""
    command = [str(binary("locker")), str(mib), "2", "0", str(lock_mib)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process.pid
        finally:
            process.kill()


def blocked_reads() -> float:
    with urllib.request.urlopen(f"http://{SCRAPED}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(COUNTER))


def test_a_locked_process_is_blocked_and_counted_while_ticks_go_on_and_others_are_sampled(tmp_path: Path) -> None:
    overrides = {**SMALL, "select.read_timeout": f"{TIMEOUT_SECONDS:g}s", "metrics.listen": SCRAPED}
    with locker(mib=MIB, lock_mib=LOCK_MIB) as pid, Balancerd(tmp_path, overrides=overrides) as daemon:
        told = daemon.wait_for_reason(pid, "blocked", 60.0)
        assert told["detail"].startswith(("no answer within 2000 ms", "an earlier read of it still waits"))
        assert blocked_reads() >= 1
        with Hog("base", MIB, touch_cpu=1, spin_cpu=1, busy_percent=20) as hog:
            daemon.wait_for_reason(hog.pid, "well-placed", 60.0)
        assert daemon.status()["totals"]["failed_ticks"] == 0
        ticks = daemon.log_lines("tick")
        print("longest sample phases", sorted((t["seconds"]["sample"] for t in ticks), reverse=True)[:4], len(ticks))
        surveys = [
            tick["seconds"]["survey"] if tick["number"] > 1 else 0.0 for tick in ticks
        ]  # the first sees everybody
        took = [survey + tick["seconds"]["sample"] for survey, tick in zip(surveys, ticks, strict=True)]
        late = [seconds for seconds in took if seconds > LONGEST_PHASES_SECONDS]
        assert len(ticks) > 3
        assert late == []
        began = time.monotonic()
        assert daemon.stop() == 0
        print("stopped in", time.monotonic() - began)


@pytest.fixture
def cgroups() -> Iterator[dict[str, Path]]:
    """Three cgroups that say it in three ways, the first two on the parent of where the process is."""
    made = {name: CGROUPS / name for name in ("lab-nobalance", "lab-user", "lab-trusted")}
    for directory in made.values():
        (directory / "below").mkdir(parents=True)
    os.setxattr(made["lab-user"], "user.balancerd", b"off")
    os.setxattr(made["lab-trusted"] / "below", "trusted.balancerd", b"off")
    yield {name: directory / "below" for name, directory in made.items()}
    for directory in made.values():
        (directory / "below").rmdir()
        directory.rmdir()


@pytest.mark.thorough
def test_whoever_asks_for_it_is_left_alone_and_explain_says_where_it_was_asked(
    tmp_path: Path, cgroups: dict[str, Path]
) -> None:
    def joining(cgroup: Path) -> Sequence[str]:
        return "sh", "-c", f'echo $$ > {cgroup}/cgroup.procs; exec "$@"', "sh"

    wanted: dict[str, tuple[Sequence[str], str]] = {
        "environment": (("env", "BALANCERD=off"), "BALANCERD=off in its environment"),
        "name": (joining(cgroups["lab-nobalance"]), "the name of its cgroup /lab-nobalance"),
        "user": (joining(cgroups["lab-user"]), "user.balancerd=off on the cgroup /lab-user"),
        "trusted": (joining(cgroups["lab-trusted"]), "trusted.balancerd=off on the cgroup /lab-trusted/below"),
    }
    with ExitStack() as stack:
        hogs = {
            name: stack.enter_context(Hog("base", MIB, touch_cpu=2, spin_cpu=0, busy_percent=15, prefix=prefix))
            for name, (prefix, _) in wanted.items()
        }
        plain = stack.enter_context(Hog("base", MIB, touch_cpu=2, spin_cpu=0, busy_percent=15))
        daemon = stack.enter_context(Balancerd(tmp_path, overrides=SMALL))
        daemon.wait_for_reason(plain.pid, "well-placed", 90.0)
        assert mib_by_node(plain.pid)[0] >= MIB
        for name, (_, where) in wanted.items():
            told = daemon.wait_for_reason(hogs[name].pid, "opted-out")
            assert told["detail"] == where
            assert mib_by_node(hogs[name].pid)[2] >= MIB
        ran = daemon.balancerctl("explain", str(hogs["environment"].pid))
        assert "BALANCERD=off in its environment" in ran.stdout
        listed = json.loads(daemon.balancerctl("explain", str(hogs["user"].pid), "--json").stdout)["process"]
        assert (listed["reason"], listed["detail"]) == ("opted-out", wanted["user"][1])
