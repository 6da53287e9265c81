"""The real Prometheus server, with the scrape configuration that is shipped, against a real listener."""

import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from tests.unit.control.daemon import Room, running
from tests.unit.reports import a_moving_report

SHIPPED = Path(__file__).parents[2] / "deploy" / "prometheus" / "prometheus.yml"
DEADLINE_SECONDS = 45.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def query(port: int, expression: str) -> list[tuple[dict[str, str], float]]:
    """Answer an instant query as label sets and values; nothing while the server is not up."""
    url = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            answer = json.load(response)
    except (urllib.error.URLError, ConnectionError):
        return []
    assert answer["status"] == "success"
    return [(result["metric"], float(result["value"][1])) for result in answer["data"]["result"]]


@pytest.mark.timeout(90)
def test_prometheus_scrapes_the_daemon_and_answers_for_the_migrated_bytes(tmp_path: Path) -> None:
    room = Room(socket=tmp_path / "control.sock")
    for number in (1, 2, 3):
        room.metrics.emit(a_moving_report(number, moved_pages=1000))
    server = room.metrics_server()
    with running(server):
        host, daemon_port = server.address
        text = SHIPPED.read_text()
        assert "127.0.0.1:9923" in text
        config = tmp_path / "prometheus.yml"
        config.write_text(
            text.replace("127.0.0.1:9923", f"{host}:{daemon_port}")
            .replace("scrape_interval: 15s", "scrape_interval: 1s")
            .replace("scrape_timeout: 5s", "scrape_timeout: 1s")
        )
        port = free_port()
        with (tmp_path / "prometheus.log").open("wb") as log:
            prometheus = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={config}",
                    f"--storage.tsdb.path={tmp_path / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            answer: list[tuple[dict[str, str], float]] = []
            deadline = time.monotonic() + DEADLINE_SECONDS
            while not answer and prometheus.poll() is None and time.monotonic() < deadline:
                answer = query(port, "balancerd_migrated_bytes_total")
                time.sleep(0.1)
            assert answer, (tmp_path / "prometheus.log").read_text()
            ((labels, value),) = answer
            assert value == 3 * 1000 * 4096
            assert (labels["from_node"], labels["to_node"], labels["job"]) == ("1", "0", "balancerd")
            assert query(port, "up")[0][1] == 1
            assert query(port, "sum(balancerd_migration_pages_total)")[0][1] == 3 * 1024
        finally:
            prometheus.terminate()
            prometheus.wait(20)


def test_the_shipped_scrape_configuration_is_valid() -> None:
    done = subprocess.run(["promtool", "check", "config", str(SHIPPED)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
