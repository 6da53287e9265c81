"""A real Prometheus server scrapes the real daemon while it migrates, answers for the bytes, and an alert fires."""

import contextlib
import itertools
import json
import re
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from balancerd.config.units import format_bytes
from tests.lab.service import Balancerd
from tests.lab.workloads import Hog

pytestmark = [pytest.mark.topology("four-nodes"), pytest.mark.timeout(600)]

MIB = 72
SHIPPED = Path(__file__).parents[2] / "deploy/prometheus"
RULES = ("balancerd.rules.yml", "balancerd.alerts.yml")
SERVER = "127.0.0.1:9090"
PATIENCE_SECONDS = 120.0
FIRING = 'ALERTS{alertname="BalancerdReloadFailed",alertstate="firing"}'


def ask(path: str, **parameters: str) -> dict[str, Any]:
    """What the server's API answers."""
    with urllib.request.urlopen(
        f"http://{SERVER}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=10
    ) as told:
        result: dict[str, Any] = json.load(told)["data"]
    return result


def query(expression: str) -> list[float]:
    """The value of each series now; none while the server does not answer."""
    try:
        return [float(series["value"][1]) for series in ask("query", query=expression)["result"]]
    except OSError:
        return []


def wait_for(expression: str, is_wanted: Callable[[list[float]], bool] = bool) -> list[float]:
    """Poll the server until the answer is as wanted, by default until there is a series; return what it said last."""
    end = time.monotonic() + PATIENCE_SECONDS
    values = query(expression)
    while not is_wanted(values) and time.monotonic() < end:
        time.sleep(1.0)
        values = query(expression)
    return values


def put_configuration(folder: Path) -> Path:
    """Copy what is shipped. Only times are shorter: of scrapes and rules, and how long the one alert is waited for."""
    config = (SHIPPED / "prometheus.yml").read_text(encoding="utf-8")
    config = re.sub(r"(scrape|evaluation)_interval: \d+s", r"\1_interval: 5s", config)
    (folder / "prometheus.yml").write_text(config, encoding="utf-8")
    for name in RULES:
        text = (SHIPPED / name).read_text(encoding="utf-8")
        text = re.sub(r"(alert: BalancerdReloadFailed\n\s+expr: .*\n\s+for:) 10m", r"\1 1s", text)
        (folder / name).write_text(text, encoding="utf-8")
    return folder / "prometheus.yml"


@contextlib.contextmanager
def prometheus(folder: Path) -> Iterator[None]:
    """A server with the shipped configuration, until the block is left."""
    server = ["prometheus", f"--config.file={put_configuration(folder)}", f"--storage.tsdb.path={folder}/tsdb"]
    with subprocess.Popen(
        [*server, f"--web.listen-address={SERVER}"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as process:
        try:
            yield
        finally:
            process.kill()


def check_answers(moved: int) -> None:
    """Check what the daemon answers on the address of its metrics: these, the page, and the page's events."""
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


def check_rules() -> None:
    """Check that the server has evaluated every rule that is shipped, and that nothing is wrong with one."""
    assert wait_for("instance:balancerd_migration_pages:rate1h > 0")
    rules = [rule for group in ask("rules")["groups"] for rule in group["rules"]]
    shipped = "".join((SHIPPED / name).read_text(encoding="utf-8") for name in RULES)
    assert len(rules) == len(re.findall(r"^ +- (?:record|alert): ", shipped, re.MULTILINE))
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] == "err"] == []


def check_alert(daemon: Balancerd) -> None:
    """Check that an alert fires when its cause is there, with its words, and ends with it."""
    assert query(FIRING) == []
    daemon.config.write_text("mode: sometimes\n", encoding="utf-8")
    daemon.process.send_signal(signal.SIGHUP)
    assert wait_for(FIRING) == [1.0]
    (alert,) = [a for a in ask("alerts")["alerts"] if a["labels"]["alertname"] == "BalancerdReloadFailed"]
    assert (alert["labels"]["severity"], alert["labels"]["cluster"]) == ("warning", "here")
    assert "127.0.0.1:9923" in alert["annotations"]["summary"]
    daemon.config.write_text("", encoding="utf-8")
    daemon.process.send_signal(signal.SIGHUP)
    assert wait_for(FIRING, lambda values: not values) == []


def test_prometheus_sees_memory_migrate_and_an_alert_fires(tmp_path: Path) -> None:
    overrides = {"select.min_age": "1s", "tick_interval": "1s", "metrics.listen": "127.0.0.1:9923"}
    with Balancerd(tmp_path, overrides=overrides) as daemon, prometheus(tmp_path):
        pages = 'balancerd_migration_pages_total{status="moved"}'
        assert wait_for(pages) == [0.0]
        with Hog("base", MIB, touch_cpu=2, spin_cpu=0) as hog:
            daemon.wait_for_reason(hog.pid, "well-placed", PATIENCE_SECONDS)
        moved = daemon.status()["totals"]["moved_bytes"]
        assert moved >= MIB << 20
        check_answers(moved)
        assert wait_for(pages, lambda values: values == [moved / 4096]) == [moved / 4096]
        to_home = 'sum(balancerd_migrated_bytes_total{job="balancerd",to_node="0"})'
        assert wait_for(to_home, lambda values: values == [moved]) == [moved]  # it may have been scraped in between
        assert sum(query(f"increase({pages}[5m])")) > 0
        assert query('up{job="balancerd"}') == [1.0]
        check_rules()
        check_alert(daemon)
