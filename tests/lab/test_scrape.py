"""A real Prometheus server scrapes the real daemon while it migrates, and answers for the bytes."""

import itertools
import json
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from balancerd.config.units import format_bytes
from tests.lab.service import Balancerd
from tests.lab.workloads import Hog

pytestmark = [pytest.mark.topology("four-nodes"), pytest.mark.timeout(300)]

MIB = 72
SCRAPE_CONFIG = Path(__file__).parents[2] / "deploy/prometheus/prometheus.yml"
SERVER = "127.0.0.1:9090"
PATIENCE_SECONDS = 120.0


def query(expression: str) -> list[dict[str, list[str]]]:
    address = f"http://{SERVER}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    with urllib.request.urlopen(address, timeout=10) as answer:
        result: list[dict[str, list[str]]] = json.load(answer)["data"]["result"]
    return result


def wait_for_value(expression: str, wanted: float) -> float:
    """Poll the server until the sum of the answer is as wanted; return what it said last."""
    end = time.monotonic() + PATIENCE_SECONDS
    value = -1.0
    while value != wanted and time.monotonic() < end:
        time.sleep(1.0)
        try:
            value = sum(float(series["value"][1]) for series in query(expression))
        except OSError:
            continue
    return value


def test_prometheus_answers_a_query_for_the_migrated_bytes(tmp_path: Path) -> None:
    config = tmp_path / "prometheus.yml"
    config.write_text(SCRAPE_CONFIG.read_text().replace("scrape_interval: 15s", "scrape_interval: 5s"))
    overrides = {"select.min_age": "1s", "tick_interval": "1s", "metrics.listen": "127.0.0.1:9923"}
    with Balancerd(tmp_path, overrides=overrides) as daemon:
        with Hog("base", MIB, touch_cpu=2, spin_cpu=0) as hog:
            daemon.wait_for_reason(hog.pid, "well-placed")
        moved = daemon.status()["totals"]["moved_bytes"]
        assert moved >= MIB << 20
        with urllib.request.urlopen("http://127.0.0.1:9923/metrics", timeout=10) as answer:
            exposition = answer.read()
        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=exposition, capture_output=True, check=False, timeout=120
        )
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
        with urllib.request.urlopen("http://127.0.0.1:9923/", timeout=30) as answer:
            page = answer.read().decode()
        assert f"{format_bytes(moved)} moved; " in page
        with urllib.request.urlopen("http://127.0.0.1:9923/events", timeout=60) as events:
            told = itertools.islice((int(line[6:]) for line in events if line.startswith(b"data: ")), 2)
            first, second = told
        assert first < second
        server = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path}/tsdb"]
        with subprocess.Popen(
            [*server, f"--web.listen-address={SERVER}"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        ) as prometheus:
            try:
                to_home = 'balancerd_migrated_bytes_total{job="balancerd",to_node="0"}'
                assert wait_for_value(to_home, float(moved)) == moved
                assert wait_for_value('balancerd_migration_pages_total{status="moved"}', moved / 4096) == moved / 4096
                assert wait_for_value('up{job="balancerd"}', 1.0) == 1.0
            finally:
                prometheus.kill()
