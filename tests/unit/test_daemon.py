"""The real command on this machine: start, notify, reload, stop; and the loop itself with fakes where time matters."""

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from balancerd import daemon as daemon_module
from balancerd.control.client import ControlClient, ControlFailure
from balancerd.control.event_client import EventReader
from balancerd.model.ids import ProcessId
from balancerd.model.report import TickReport
from balancerd.precedence import Precedence
from tests.unit.fakes import FakeClock
from tests.unit.reports import a_report, an_outcome

BIN = Path(sys.executable).parent
PATIENCE_SECONDS = 20.0
QUIET = "tick_interval: 200ms\nmode: observe\nselect: {min_rss: 1GiB, scan_budget: 100%}\n"


class Daemon:
    """`balancerd` in a folder of its own, with its log and its service manager's socket."""

    def __init__(self, folder: Path, config: str, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.config = folder / "balancerd.yaml"
        self.config.write_text(config, encoding="utf-8")
        self.log = folder / "log"
        self.socket = folder / "control.sock"
        self.client = ControlClient(str(self.socket))
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    BIN / "balancerd",
                    *("--config", self.config, "--set", f"control.socket={self.socket}"),
                    *("--set", "metrics.listen=127.0.0.1:0", *arguments),
                ],
                stderr=log,
                env={**os.environ, **(environment or {})},
            )

    def wait_for(self, event: str, **fields: object) -> dict[str, object]:
        """Return the first log line of that event with those fields."""
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            for line in self.log.read_text().splitlines():
                told = json.loads(line)
                if told["event"] == event and fields.items() <= told.items():
                    return dict(told)
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.02)
        raise AssertionError(f"no {event} {fields}: {self.log.read_text()}")

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(PATIENCE_SECONDS)


@contextlib.contextmanager
def running(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> Iterator[Daemon]:
    daemon = Daemon(folder, QUIET, *arguments, environment=environment)
    try:
        daemon.wait_for("tick")
        yield daemon
    finally:
        daemon.process.kill()
        daemon.process.wait()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BIN / "balancerd", *arguments], capture_output=True, text=True, check=False, timeout=60)


def test_sigterm_ends_it_with_status_0_and_removes_the_socket(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        assert daemon.socket.exists()
        assert daemon.stop() == 0
        assert not daemon.socket.exists()


def test_it_streams_its_ticks_and_ends_the_streams_when_it_ends(tmp_path: Path) -> None:
    with running(tmp_path, "--set", "tick_interval=1s") as daemon:
        heard = (event["tick"] for event in EventReader(str(daemon.socket), "/v1/stream").read() if event)
        first = next(heard)
        assert next(heard) == first + 1
        assert daemon.stop() == 0
        with pytest.raises(ControlFailure, match="has ended the stream"):
            list(heard)
        assert "http server" not in daemon.log.read_text()


def test_once_is_one_tick(tmp_path: Path) -> None:
    ended = run(
        "--once", "--set", f"control.socket={tmp_path}/s", "--set", "metrics.listen=null", "--set", "mode=observe"
    )
    assert ended.returncode == 0
    assert [json.loads(line)["event"] for line in ended.stderr.splitlines()] == ["started", "tick", "stopped"]


def test_a_bad_configuration_is_refused_at_start_with_every_finding(tmp_path: Path) -> None:
    path = tmp_path / "balancerd.yaml"
    path.write_text("mode: obsrve\nselekt: {}\npolicies:\n  - {name: a, kind: follow-gpu}\n", encoding="utf-8")
    ended = run("--config", str(path), "--once")
    assert ended.returncode == 5
    lines = ended.stderr.splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{path}:1:7", f"{path}:2:1", f"{path}:4:21"]
    assert "did you mean 'follow-cpu'?" in lines[2]


def test_a_second_daemon_on_the_same_socket_is_refused(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        second = run("--once", "--set", f"control.socket={daemon.socket}", "--set", "metrics.listen=null")
        assert second.returncode == 5
        assert "another daemon answers there" in second.stderr
        assert daemon.client.get("/v1/status")["pid"] == daemon.process.pid


def test_sighup_takes_a_good_file_and_refuses_a_bad_one(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        daemon.config.write_text(QUIET + "treshold: 1\n", encoding="utf-8")
        daemon.process.send_signal(signal.SIGHUP)
        refused = daemon.wait_for("configuration refused, the old one stays")
        assert str(refused["finding"]).startswith(f"{daemon.config}:4:1: error: unknown key 'treshold'")
        status = daemon.client.get("/v1/status")
        assert (status["mode"], status["config"]["last_reload"]["succeeded"]) == ("observe", False)

        daemon.config.write_text(QUIET.replace("observe", "enforce"), encoding="utf-8")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("reloaded")
        daemon.wait_for("tick", mode="enforce")
        assert daemon.client.get("/v1/status")["config"]["last_reload"]["succeeded"] is True


def test_what_needs_a_restart_is_refused_at_reload(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        daemon.config.write_text(QUIET + "control: {group: root}\n", encoding="utf-8")
        daemon.process.send_signal(signal.SIGHUP)
        refused = daemon.wait_for("configuration refused, the old one stays")
        assert refused["finding"] == "control cannot change while running: restart balancerd for it"


def test_the_log_level_follows_a_reload(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        daemon.config.write_text(QUIET + "log: {level: debug}\n", encoding="utf-8")
        daemon.client.post("/v1/reload")
        daemon.wait_for("reloaded")
        daemon.config.write_text(QUIET + "log: {level: error}\n", encoding="utf-8")
        daemon.client.post("/v1/reload")
        number = daemon.client.get("/v1/status")["tick"]["number"]
        end = time.monotonic() + PATIENCE_SECONDS
        while daemon.client.get("/v1/status")["tick"]["number"] < number + 3:
            assert time.monotonic() < end
        assert max(json.loads(line).get("number", 0) for line in daemon.log.read_text().splitlines()) <= number + 1


def test_the_service_manager_hears_ready_status_watchdog_and_stopping(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        address = tmp_path / "notify"
        manager.bind(str(address))
        manager.settimeout(PATIENCE_SECONDS)
        environment = {"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": "600000"}
        with running(tmp_path, environment=environment) as daemon:
            heard = set[str]()
            while not {"READY=1", "WATCHDOG=1"} <= heard or not any(h.startswith("STATUS=observe") for h in heard):
                heard.update(manager.recv(4096).decode().splitlines())
            daemon.process.send_signal(signal.SIGHUP)
            while "RELOADING=1" not in heard:
                heard.update(manager.recv(4096).decode().splitlines())
            daemon.process.terminate()
            while "STOPPING=1" not in heard:
                heard.update(manager.recv(4096).decode().splitlines())


def test_a_job_is_taken_up_at_once_however_long_the_tick_interval_is(tmp_path: Path) -> None:
    with running(tmp_path, "--set", "tick_interval=5m") as daemon:
        before = daemon.client.get("/v1/status")["tick"]["number"]
        daemon.client.post("/v1/jobs", {"kind": "evict", "pid": os.getpid(), "cold_only": True})
        ended = daemon.wait_for("job ended")
        assert (ended["kind"], ended["pid"], ended["state"]) == ("evict", os.getpid(), "failed")
        assert (ended["reason"], ended["evicted_pages"]) == ("observe-mode", 0)
        assert daemon.client.get("/v1/jobs/1")["job"]["reason"] == "observe-mode"
        assert daemon.client.get("/v1/status")["tick"]["number"] == before
        assert daemon.stop() == 0


class SlicedJobs:
    """Jobs that want to be called again at the given times; `seconds` is how long a slice takes."""

    def __init__(
        self, clock: FakeClock, next_at: list[float | None], seconds: float = 1.0, cpu_seconds: float = 0.0
    ) -> None:
        self.clock, self.next_at, self.seconds, self.cpu_seconds = clock, next_at, seconds, cpu_seconds
        self.called_at: list[tuple[float, float]] = []
        self.stopped = False

    def work(self, until: float) -> float | None:
        self.called_at.append((self.clock.now(), until))
        self.clock.time += self.seconds
        self.clock.cpu += self.cpu_seconds
        return self.next_at.pop(0) if self.next_at else None

    def add_to(self, report: TickReport) -> TickReport:
        return replace(report, outcomes=(an_outcome(ProcessId(7, 7)),))

    def stop(self) -> None:
        self.stopped = True


class NotedPrecedence(Precedence):
    """Takes note of when ticks were said to be due, and whether one is at work."""

    def __init__(self) -> None:
        super().__init__()
        self.expected_at: list[float] = []
        self.is_held = False

    def expect(self, due_at: float) -> None:
        self.expected_at.append(due_at)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        self.is_held = True
        yield
        self.is_held = False


class Heard:
    """A notifier, a log, a sink and an engine that remember; after `ticks` ticks the flags say stop."""

    def __init__(self, clock: FakeClock, ticks: int) -> None:
        self.clock, self.ticks = clock, ticks
        self.flags = daemon_module.Flags(lambda: None)
        self.fed_at: list[float] = []
        self.ticked_at: list[float] = []
        self.ready_at = 0.0
        self.sooner_seconds = 0.0
        self.moving_seconds = 0.0
        self.reports: list[TickReport] = []
        self.precedence = NotedPrecedence()

    def tick(self) -> TickReport:
        self.ticked_at.append(self.clock.now())
        assert self.precedence.is_held
        self.flags.stop = len(self.ticked_at) >= self.ticks
        return a_report()

    def due_at(self, began_at: float, regular_at: float) -> float:
        assert began_at == self.ticked_at[-1]
        return regular_at - self.sooner_seconds

    def next_tick_at(self, due_at: float) -> float:
        """Tell that time, and whoever asks again a later one: waking up to ask has cost something, too."""
        ready_at, self.ready_at = self.ready_at, self.ready_at and self.ready_at + 5.0
        return max(due_at, ready_at)

    def note_moving(self, cpu_seconds: float) -> None:
        self.moving_seconds += cpu_seconds

    def emit(self, report: TickReport) -> None:
        self.reports.append(report)

    def watchdog(self) -> None:
        self.fed_at.append(self.clock.now())

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_told, **_more: None


def loop(
    clock: FakeClock,
    jobs: SlicedJobs,
    *,
    ticks: int = 2,
    watchdog_seconds: float | None = None,
    ready_at: float = 0.0,
    sooner_seconds: float = 0.0,
) -> Heard:
    heard = Heard(clock, ticks)
    heard.ready_at, heard.sooner_seconds = ready_at, sooner_seconds
    running_now: Any = daemon_module.Running(
        engine=heard,
        tick_interval_seconds=10.0,
        summary="",
        log=heard,  # type: ignore[arg-type]  # and says nothing
        tick_log=heard,
    )
    daemon = daemon_module.Daemon(
        running=running_now,
        reload=lambda: running_now,
        clock=clock,
        flags=heard.flags,
        jobs=jobs,  # type: ignore[arg-type]  # all that the loop asks of them
        sinks=(),
        on_tick_failed=pytest.fail,
        on_reloaded=lambda _error: None,
        notifier=heard,  # type: ignore[arg-type]  # as above
        watchdog_seconds=watchdog_seconds,
        precedence=heard.precedence,
    )
    assert daemon.run() == 0
    return heard


def test_a_tick_waits_for_the_scan_budget_while_jobs_go_on() -> None:
    clock = FakeClock(1000.0)
    jobs = SlicedJobs(clock, [1001.0, None, 1014.0, None])
    heard = loop(clock, jobs, ready_at=1025.0, watchdog_seconds=8.0)
    assert heard.ticked_at == [1000.0, 1025.0]
    assert [deadline for _now, deadline in jobs.called_at] == [1010.0, 1010.0, *[1025.0] * 3]
    assert max(b - a for a, b in itertools.pairwise(heard.fed_at)) <= 8.0
    assert heard.precedence.expected_at == [1010.0, 1025.0, 1035.0]
    assert not heard.precedence.is_held


def test_a_tick_comes_as_soon_as_the_engine_wants_it_and_the_scan_budget_allows_it() -> None:
    clock = FakeClock(1000.0)
    assert loop(clock, SlicedJobs(clock, [None] * 9), sooner_seconds=7.0, ticks=3).ticked_at == [1000.0, 1003.0, 1006.0]
    clock = FakeClock(1000.0)
    heard = loop(clock, SlicedJobs(clock, [None] * 9), sooner_seconds=7.0, ready_at=1004.0)
    assert heard.ticked_at == [1000.0, 1004.0]
    assert heard.precedence.expected_at[0] == 1003.0


def test_what_jobs_use_is_not_observing() -> None:
    clock = FakeClock(1000.0)
    jobs = SlicedJobs(clock, [1001.0, None], cpu_seconds=0.25)
    assert loop(clock, jobs).moving_seconds == pytest.approx(0.5)


def test_between_ticks_the_loop_works_when_the_jobs_want_it_and_feeds_the_watchdog_after_each_slice() -> None:
    clock = FakeClock(1000.0)
    jobs = SlicedJobs(clock, [1001.0, 1005.0, None])
    heard = loop(clock, jobs)
    assert heard.ticked_at == [1000.0, 1010.0]
    assert jobs.called_at == [(1000.0, 1010.0), (1001.0, 1010.0), (1005.0, 1010.0)]
    assert {1000.0, 1001.0, 1002.0, 1006.0, 1010.0} == set(heard.fed_at) - {1005.0}
    assert jobs.stopped


def test_jobs_that_never_rest_delay_a_tick_by_one_slice_at_most() -> None:
    clock = FakeClock(1000.0)
    jobs = SlicedJobs(clock, [0.0] * 99, seconds=0.75)
    heard = loop(clock, jobs, ticks=3)
    assert heard.ticked_at == [1000.0, 1010.5, 1021.0]


def test_without_jobs_the_loop_naps_no_longer_than_the_watchdog_has_patience() -> None:
    clock = FakeClock(1000.0)
    heard = loop(clock, SlicedJobs(clock, [], seconds=0.0), watchdog_seconds=4.0)
    assert sorted(set(heard.fed_at)) == [1000.0, 1004.0, 1008.0, 1010.0]


def test_what_jobs_did_is_in_the_next_report() -> None:
    clock = FakeClock(1000.0)
    heard = loop(clock, SlicedJobs(clock, []), ticks=1)
    (report,) = heard.reports
    assert [outcome.step.process.pid for outcome in report.outcomes] == [7]


def test_metrics_tell_of_the_daemon_that_serves_them(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with running(tmp_path, "--set", f"metrics.listen=127.0.0.1:{port}") as daemon:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        assert 'balancerd_mode{mode="observe"} 1.0' in text
        assert 'balancerd_ticks_total{outcome="failure"} 0.0' in text
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            assert json.load(answer)["ready"] is True
        assert daemon.stop() == 0


def test_explain_tells_of_processes_that_the_survey_passes_over(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        own = daemon.client.get(f"/v1/processes/{os.getpid()}")["process"]
        assert own["reason"] == "below-min-rss"
        with pytest.raises(ControlFailure, match="there is no process 4194303"):
            daemon.client.get("/v1/processes/4194303")


def test_the_daemon_imports_no_user_interface_and_stays_small(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        status = Path(f"/proc/{daemon.process.pid}/status").read_text()
        rss_kib = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
        assert rss_kib < 60 * 1024
        maps = Path(f"/proc/{daemon.process.pid}/maps").read_text()
        assert "_core.abi3.so" in maps
    code = "import sys, balancerd.cli.daemon; print(sorted({'rich', 'click', 'textual'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
