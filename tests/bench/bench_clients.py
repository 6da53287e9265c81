"""What hostile clients cost: ticks of a real daemon, and the answers that others get, while 208 besiege both listeners.

    python -m tests.bench.bench_clients [--rounds 4] [--seconds 15] [--kinds KIND ...] [--each 8]

Two daemons run side by side, in observe mode with fast ticks. In each round there are three blocks, so that what
disturbs one disturbs all: `nobody` besieges them, the siege is at the `other`, or it is `here`. Ticks of the first
daemon are compared. Its ticks beside those of `other` tell what the clients do to it; `other` beside `nobody`, what
programs do that take CPUs. Meanwhile honest clients ask the first daemon five times a second each: the same user on the
control socket, for /metrics from the address of the besiegers, and from another one. Aim: with the siege here the
median tick takes no more than 1.25 times as long as with the siege elsewhere, p99 no more than 1.5 times, no honest
client goes without its answer, and the daemon's RSS grows by 32 MiB at most. Prints a table and a line of JSON, and
ends with 1 when an aim is missed.
"""

import argparse
import contextlib
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from balancerd.control.client import ControlClient, ControlFailure
from tests.bench.bench_native import Row, print_table
from tests.bench.watchers import Balancerd, balancerd, free_port
from tests.siege import KINDS

SETTINGS: Final = ("tick_interval=200ms", "select.scan_budget=100%", "log.format=json")
CONDITIONS: Final = ("nobody", "other", "here")
MEDIAN_RATIO, P99_RATIO, GROWTH_MIB = 1.25, 1.5, 32.0
ASK_SECONDS = 0.2
ANSWER_SECONDS = 10.0
"""What Prometheus gives a scrape by default."""

REST_SECONDS = 6.0
"""Behind a siege: what it left has gone by then."""

SAME_ADDRESS, OTHER_ADDRESS = "127.0.0.1", "127.0.0.2"


@dataclass
class Seen:
    """What was measured under one condition, in seconds."""

    ticks: list[float] = field(default_factory=list)
    answers: dict[str, list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Watched:
    """A daemon and where it listens."""

    daemon: Balancerd
    port: int

    @property
    def addresses(self) -> tuple[str, str]:
        return self.daemon.socket, f"{SAME_ADDRESS}:{self.port}"

    def scrape(self, source: str) -> None:
        """Ask for /metrics from an address of this machine. Raises OSError, HTTPException."""
        connection = http.client.HTTPConnection(
            SAME_ADDRESS, self.port, timeout=ANSWER_SECONDS, source_address=(source, 0)
        )
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            answer = connection.getresponse()
            if answer.status != http.client.OK or not answer.read():
                raise http.client.HTTPException(f"answered {answer.status}")

    @property
    def honest(self) -> dict[str, Callable[[], object]]:
        """Those who ask, by what they are called in the table."""
        client = ControlClient(self.daemon.socket, timeout_seconds=ANSWER_SECONDS)
        return {
            "status": lambda: client.get("/v1/status"),
            "metrics": lambda: self.scrape(SAME_ADDRESS),
            "metrics, other address": lambda: self.scrape(OTHER_ADDRESS),
        }


@contextlib.contextmanager
def watched(folder: Path) -> Iterator[Watched]:
    """Run a daemon that listens on a port of its own."""
    folder.mkdir()
    port = free_port()
    with balancerd(folder, (*SETTINGS, f"metrics.listen={SAME_ADDRESS}:{port}")) as daemon:
        daemon.next_tick()
        yield Watched(daemon, port)


@contextlib.contextmanager
def siege(target: Watched | None, kinds: Sequence[str], each: int) -> Iterator[None]:
    """Besiege a daemon for the length of a block, None for none."""
    if target is None:
        yield
        return
    command = [sys.executable, "-m", "tests.siege", "--each", str(each), *target.addresses, "--kinds", *kinds]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as besiegers:
        assert besiegers.stdout is not None
        besiegers.stdout.readline()
        try:
            yield
        finally:
            besiegers.kill()


def ask_on(ask: Callable[[], object], until: float, took: list[float], failures: list[str]) -> None:
    """Ask again and again until then."""
    while (began := time.monotonic()) < until:
        try:
            ask()
        except (OSError, http.client.HTTPException, ControlFailure) as error:
            failures.append(str(error) or type(error).__name__)
        else:
            took.append(time.monotonic() - began)
        time.sleep(max(0.0, began + ASK_SECONDS - time.monotonic()))


def measure(target: Watched, seen: Seen, seconds: float) -> None:
    """Watch ticks and ask for so long."""
    target.daemon.catch_up()
    first = len(target.daemon.lines)
    until = time.monotonic() + seconds
    threads = [
        threading.Thread(target=ask_on, args=(ask, until, seen.answers.setdefault(name, []), seen.failures))
        for name, ask in target.honest.items()
    ]
    for thread in threads:
        thread.start()
    target.daemon.run_for(seconds)
    for thread in threads:
        thread.join()
    seen.ticks += [float(sum(line["seconds"].values())) for line in target.daemon.lines[first:]]


def quantile(seconds: Sequence[float], ratio: float) -> float:
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(ratio * len(ordered)))]


def rows(all_seen: dict[str, Seen]) -> Iterator[Row]:
    for condition, seen in all_seen.items():
        yield {
            "siege": condition,
            "ticks": len(seen.ticks),
            "tick ms": round(1000 * statistics.median(seen.ticks), 2),
            "p99": round(1000 * quantile(seen.ticks, 0.99), 2),
            **{
                f"{name} ms, p99": f"{1000 * statistics.median(took):.1f}, {1000 * quantile(took, 0.99):.1f}"
                for name, took in seen.answers.items()
            },
            "no answer": len(seen.failures),
        }


def ratios(all_seen: dict[str, Seen]) -> dict[str, float]:
    """Of the ticks of the daemon that is besieged, beside those while another is; and of these beside none."""
    nobody, other, here = (all_seen[condition].ticks for condition in CONDITIONS)
    return {
        "median": round(statistics.median(here) / statistics.median(other), 3),
        "p99": round(quantile(here, 0.99) / quantile(other, 0.99), 3),
        "median elsewhere": round(statistics.median(other) / statistics.median(nobody), 3),
        "p99 elsewhere": round(quantile(other, 0.99) / quantile(nobody, 0.99), 3),
    }


def rss_mib(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss) / (1 << 20)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--each", type=int, default=8, help="clients of each kind for each listener")
    given = parser.parse_args(arguments)
    all_seen = {condition: Seen() for condition in CONDITIONS}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        here, other = (stack.enter_context(watched(Path(name) / place)) for place in ("here", "other"))
        measure(here, Seen(), given.seconds)
        rss_before = rss_mib(here.daemon.pid)
        for turn in range(given.rounds):
            order = CONDITIONS[turn % 3 :] + CONDITIONS[: turn % 3]
            for condition in order:
                with siege({"nobody": None, "other": other, "here": here}[condition], given.kinds, given.each):
                    measure(here, all_seen[condition], given.seconds)
                time.sleep(REST_SECONDS)
        rss_after = rss_mib(here.daemon.pid)
    told = ratios(all_seen)
    missed = [
        text
        for text, is_missed in (
            (f"the median tick takes {told['median']} times as long", told["median"] > MEDIAN_RATIO),
            (f"p99 of the ticks is {told['p99']} times as long", told["p99"] > P99_RATIO),
            (f"no answer: {all_seen['here'].failures[:3]}", bool(all_seen["here"].failures)),
            (f"RSS grew by {rss_after - rss_before:.1f} MiB", rss_after - rss_before > GROWTH_MIB),
        )
        if is_missed
    ]
    print_table(list(rows(all_seen)))
    print(f"ticks: {told}; RSS {rss_before:.1f} MiB before, {rss_after:.1f} MiB after")
    print("no aim was missed" if not missed else f"aim missed: {'; '.join(missed)}")
    print(json.dumps({"bench": "clients", "ratios": told, "rss_mib": [rss_before, rss_after], "missed": missed}))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
