"""Rules and alerts for Prometheus: promtool runs their own tests, and every expression is held to the catalogue."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from balancerd.config.schema import Config
from balancerd.model.page_status import NEVER_SUBMITTED, PageStatus
from balancerd.model.states import SKIPPED_STATES
from tests.unit.deploy.catalogue import TARGET_LABELS
from tests.unit.deploy.promql import WrongExpressionError, check
from tests.unit.deploy.shipped import ALERTS, PROMETHEUS, ROOT, RULES, alerts, known, records

CASES = sorted((PROMETHEUS / "tests").glob("*.yml"))
SEVERITIES = {"critical", "warning", "info"}
LABEL_USED = re.compile(r"\$labels\.(\w+)")


def promtool(*words: str) -> str:
    """Run promtool; return what it said. AssertionError when it is not content."""
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


@pytest.mark.parametrize("path", [RULES, ALERTS], ids=lambda path: path.name)
def test_promtool_finds_no_fault_with_the_rules(path: Path) -> None:
    n_rules = len(alerts()) if path == ALERTS else len(records())
    assert f"SUCCESS: {n_rules} rules found" in promtool("check", "rules", "--lint=all", "--lint-fatal", str(path))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name)
def test_rules_and_alerts_do_what_their_tests_say(path: Path) -> None:
    assert "SUCCESS" in promtool("test", "rules", str(path))


@pytest.mark.parametrize("name", alerts())
def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(name: str) -> None:
    checks = [
        each
        for path in CASES
        for case in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]
        for each in case.get("alert_rule_test", ())
        if each["alertname"] == name
    ]
    assert [each for each in checks if each["exp_alerts"]], "it never fires"
    assert [each for each in checks if not each["exp_alerts"]], "it always fires"


@pytest.mark.parametrize("name", alerts())
def test_every_alert_asks_for_what_there_is_and_says_what_an_operator_needs(name: str) -> None:
    alert = alerts()[name]
    labels = check(alert["expr"], known())
    assert alert["labels"].keys() == {"severity"}
    assert alert["labels"]["severity"] in SEVERITIES
    assert alert["for"] != "0s"
    annotations = alert["annotations"]
    assert annotations.keys() == {"summary", "description", "runbook_url"}
    assert annotations["runbook_url"] == f"docs/alerts.md#{name.lower()}"
    used = {label for text in annotations.values() for label in LABEL_USED.findall(text)}
    assert used <= labels, f"{sorted(used - labels)} would be empty"
    assert "cluster" in labels or name == "BalancerdNoTargets", "nobody could tell where it is"


@pytest.mark.parametrize("name", records())
def test_the_name_of_a_record_tells_its_labels_and_what_was_done(name: str) -> None:
    level, _, operation = name.split(":")
    labels = known()[name].labels
    assert labels == (TARGET_LABELS if level == "instance" else {*level.split("_")})
    assert re.fullmatch(r"sum|ratio|(ratio_)?rate\d+[mh]", operation)
    window = re.search(r"rate(\d+[mh])$", operation)
    if window is not None:
        assert all(each == window[1] for each in re.findall(r"\[(\w+)\]", records()[name]))


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("balancerd_moved_bytes", "no metric"),
        ('balancerd_mode{state="enforce"}', "no label state"),
        ('balancerd_mode{mode="enforced"}', "never 'enforced'"),
        ('rate(balancerd_migration_failed_pages_total{status=~"eio|moved"}[5m])', "never 'moved'"),
        ('balancerd_decisions_suppressed_total{reason="quarantine"} > 0', "without its rate"),
        ("sum(balancerd_ticks_total)", "before their rate"),
        ("rate(balancerd_paused[5m])", "rate of a gauge"),
        ("avg_over_time(balancerd_ticks_total[5m])", "of a counter"),
        ("sum by (policy) (balancerd_paused)", "no label policy"),
        ("sum without (node) (balancerd_workload_resident_bytes)", "no label node"),
        ("balancerd_workload_resident_bytes * balancerd_workload_locality_ratio", "on one side only"),
        ("balancerd_paused and on (policy) balancerd_plan_pending_bytes", "both sides must have policy"),
        ("histogram_quantile(0.9, sum(rate(balancerd_migration_call_duration_seconds_bucket[5m])))", "by le"),
        ("histogram_quantile(0.9, rate(balancerd_migration_call_duration_seconds_count[5m]))", "not over buckets"),
        ("sum(rate(balancerd_migration_call_duration_seconds_bucket[5m]))", "a bucket is looked at"),
    ],
)
def test_what_asks_for_something_else_is_found_out(expression: str, why: str) -> None:
    with pytest.raises(WrongExpressionError, match=why):
        check(expression, known())


@pytest.mark.parametrize("expression", ["rate(balancerd_ticks_total)", "sum by (", "balancerd_paused{"])
def test_what_is_no_expression_is_found_out(expression: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        check(expression, known())


def test_a_daemon_that_ticks_as_seldom_as_it_may_has_not_stalled() -> None:
    (seconds,) = set(re.findall(r"> (\d+)", alerts()["BalancerdStalled"]["expr"]))
    with pytest.raises(ValidationError, match="tick_interval"):
        Config.model_validate({"tick_interval": f"{int(seconds) // 2}s"})


def test_the_memory_limit_is_that_of_the_unit() -> None:
    unit = (ROOT / "systemd" / "balancerd.service").read_text(encoding="utf-8")
    limits = dict(re.findall(r"^Memory(High|Max)=(\d+)M$", unit, re.MULTILINE))
    alert = alerts()["BalancerdMemoryNearLimit"]
    assert f"* {limits['High']} * 2^20" in alert["expr"]
    assert f"beyond {limits['High']} MiB" in alert["annotations"]["description"]
    assert f"at {limits['Max']} MiB" in alert["annotations"]["description"]


def test_processes_that_nobody_looks_at_are_not_asked_whether_they_can_be_read() -> None:
    (states,) = re.findall(r'state!~"([^"]+)"', alerts()["BalancerdCannotRead"]["expr"])
    assert set(states.split("|")) == SKIPPED_STATES - {"unreadable"}


def test_each_status_of_a_page_that_did_not_move_is_a_failure_or_known_not_to_be() -> None:
    (failures,) = re.findall(r'status=~"([^"]+)"', alerts()["BalancerdPagesFail"]["expr"])
    normal = {
        PageStatus.MOVED,
        PageStatus.ABSENT,
        PageStatus.SHARED,
        PageStatus.LOCKED,
        PageStatus.BUSY,
        PageStatus.FAULT,
    }
    assert {*failures.split("|")} == {*PageStatus} - NEVER_SUBMITTED - normal


def test_the_targets_have_the_labels_that_rules_and_dashboards_ask_for(tmp_path: Path) -> None:
    for name in ("prometheus.yml", RULES.name, ALERTS.name):
        (tmp_path / name).write_text((PROMETHEUS / name).read_text(encoding="utf-8"), encoding="utf-8")
    example = (PROMETHEUS / "targets.example.yml").read_text(encoding="utf-8")
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "example.yml").write_text(example, encoding="utf-8")
    said = promtool("check", "config", str(tmp_path / "prometheus.yml"))
    assert "WARNING" not in said
    assert "SUCCESS: 2 rule files found" in said
    (job,) = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    assert job["job_name"] == "balancerd"
    for group in (*job["static_configs"], *yaml.safe_load(example)):
        assert {*group["labels"], "job", "instance"} == TARGET_LABELS
