"""A real daemon, besieged on both listeners by more than two hundred clients of every kind."""

import contextlib
import http.client
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.test_daemon import PATIENCE_SECONDS, Daemon, running

NOBODY = 65534
SIEGE_SECONDS = 6.0
"""Longer than a client is given for a request."""

GROWTH_KIB = 32 << 10
OWN_THREADS = 2
OWN_DESCRIPTORS = 4
"""That the daemon may start later, for its own work."""


@contextlib.contextmanager
def siege(*addresses: str, each: int = 8, uid: int | None = None) -> Iterator[None]:
    command = [sys.executable, "-m", "tests.siege", "--each", str(each), *addresses]
    command += [] if uid is None else ["--uid", str(uid)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as besiegers:
        assert besiegers.stdout is not None
        try:
            assert besiegers.stdout.readline() == f"{13 * each * len(addresses)} clients\n"
            yield
        finally:
            besiegers.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def scrape(port: int) -> str:
    connection = http.client.HTTPConnection(
        "127.0.0.1", port, timeout=PATIENCE_SECONDS, source_address=("127.0.0.2", 0)
    )
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()


def of_process(daemon: Daemon) -> tuple[int, int, int]:
    """Threads, descriptors, and resident memory in KiB."""
    place = Path("/proc") / str(daemon.process.pid)
    (rss,) = (line for line in (place / "status").read_text().splitlines() if line.startswith("VmRSS:"))
    threads, descriptors = (sum(1 for _ in (place / name).iterdir()) for name in ("task", "fd"))
    return threads, descriptors, int(rss.split()[1])


def test_two_hundred_hostile_clients_change_nothing(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, "--set", f"metrics.listen=127.0.0.1:{port}") as daemon:
        scrape(port)
        threads, descriptors, rss_kib = of_process(daemon)
        tick = daemon.client.get("/v1/status")["tick"]["number"]
        with siege(str(daemon.socket), f"127.0.0.1:{port}"):
            end = time.monotonic() + SIEGE_SECONDS
            while time.monotonic() < end:
                assert daemon.client.get("/v1/status")["schema"] == 1
                assert "balancerd_ticks_total" in scrape(port)
                besieged = of_process(daemon)
                assert besieged[0] <= threads + OWN_THREADS
                assert besieged[1] <= descriptors + 2 * 256
                assert besieged[2] <= rss_kib + GROWTH_KIB
                time.sleep(0.2)
            told = daemon.client.get("/v1/status")
            assert told["tick"]["number"] - tick >= SIEGE_SECONDS / 0.2 / 2  # ticks are 200 ms apart
            assert not told["paused"]
            stopped_at = time.monotonic()
            assert daemon.stop() == 0
            assert time.monotonic() - stopped_at < 2.0
        log = daemon.log.read_text()
        assert "http server" not in log
        assert "tick failed" not in log


def test_when_they_have_gone_nothing_is_left_of_them(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, "--set", f"metrics.listen=127.0.0.1:{port}") as daemon:
        scrape(port)
        threads, descriptors, _ = of_process(daemon)
        with siege(str(daemon.socket), f"127.0.0.1:{port}", each=2):
            time.sleep(1.0)
        end = time.monotonic() + PATIENCE_SECONDS
        while of_process(daemon)[1] > descriptors + OWN_DESCRIPTORS:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert of_process(daemon)[0] <= threads + OWN_THREADS
        told = scrape(port)
        assert 'balancerd_http_turned_away_total{listener="control",reason="not-http"}' in told
        assert 'balancerd_http_turned_away_total{listener="metrics",reason="not-http"}' in told


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_users_who_may_not_change_nothing_even_where_the_socket_is_open_to_them() -> None:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="balancerd-test-") as name:  # pytest's own are closed to others
        folder = Path(name)
        folder.chmod(0o755)
        with running(folder, "--set", f"metrics.listen=127.0.0.1:{port}") as daemon:
            daemon.socket.chmod(0o666)
            with siege(str(daemon.socket), uid=NOBODY):
                time.sleep(2.0)
                told = daemon.client.get("/v1/status")
                assert (told["paused"], told["pause"], told["mode"]) == (False, None, "observe")
            answered = re.findall(r'control_requests_total{code="(\d+)",method="(\w+)"}', scrape(port))
    assert {code for code, method in answered if method == "POST"} == {"403"}
    assert set(answered) == {("403", "GET"), ("403", "POST"), ("200", "GET")}
