"""docs/alerts.md and docs/fleet.md say what the files for Prometheus and the commands say; see test_docs, too."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from balancerd.config import loader
from balancerd.model.decision import Reason
from balancerd.model.page_status import PageStatus
from tests.unit.deploy.dashboards import SHIPPED, panels
from tests.unit.deploy.promql import check
from tests.unit.deploy.shipped import ROOT, alerts, known, records
from tests.unit.test_docs import anchors

DOCS = ROOT / "docs"
ALERT_PAGE = (DOCS / "alerts.md").read_text(encoding="utf-8")
FLEET_PAGE = (DOCS / "fleet.md").read_text(encoding="utf-8")
PAGES = {"alerts.md": ALERT_PAGE, "fleet.md": FLEET_PAGE}

SECTIONS: dict[str, str] = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", ALERT_PAGE, re.MULTILINE | re.DOTALL))

every_page = pytest.mark.parametrize("name", PAGES)


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language, without the indentation of a list."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def test_every_alert_has_its_section_and_every_section_its_alert_in_the_same_order() -> None:
    assert list(SECTIONS) == list(alerts())


@pytest.mark.parametrize("name", alerts())
def test_a_section_says_how_severe_what_it_means_what_to_look_at_and_what_to_do(name: str) -> None:
    alert, section = alerts()[name], SECTIONS[name]
    assert f"\n*{alert['labels']['severity']}, after {alert['for']}*\n" in section
    assert re.findall(r"^- \*\*(\w+):\*\* \S", section, re.MULTILINE) == ["Means", "Look", "Do"]
    page, anchor = alert["annotations"]["runbook_url"].split("#")
    assert anchor in anchors(ROOT / page)


@every_page
def test_every_alert_and_rule_that_a_page_names_is_there(name: str) -> None:
    text = PAGES[name]
    assert {*re.findall(r"\bBalancerd[A-Z]\w+", text)} <= alerts().keys()
    assert {*re.findall(r"\b[a-z_]+:balancerd_\w+:\w+", text)} <= records().keys()


def test_the_page_of_the_fleet_explains_every_rule() -> None:
    table = FLEET_PAGE.partition("\n## Recording rules\n")[2].partition("\n## ")[0]
    named = {*re.findall(r"\b[a-z_]+:balancerd_\w+:\w+", table)}
    short = {f"instance:balancerd_ticks_not_well:ratio{each}" for each in re.findall(r"`…(_\w+)`", table)}
    assert named | short == records().keys()


@every_page
def test_every_expression_of_a_page_asks_for_what_there_is(name: str) -> None:
    found = blocks(PAGES[name], "promql")
    assert len(found) == (4 if name == "fleet.md" else 0)
    for expression in found:
        assert check(expression, known()) <= {"cluster", "ring"}


def test_alerts_are_routed_by_names_and_severities_that_they_have() -> None:
    (routing,) = [each for each in map(yaml.safe_load, blocks(FLEET_PAGE, "yaml")) if "route" in each]
    names, severities = alerts().keys(), {each["labels"]["severity"] for each in alerts().values()}
    receivers = {each["name"] for each in routing["receivers"]}
    assert {routing["route"]["receiver"], *(each["receiver"] for each in routing["route"]["routes"])} == receivers
    for matcher in _matchers(routing):
        label, operator, value = re.fullmatch(r'(\w+)(=~?)"([^"]+)"', matcher).groups()  # type: ignore[union-attr]
        allowed = names if label == "alertname" else severities
        assert {"alertname", "severity"} >= {label}
        wanted = [value] if operator == "=" else value.split("|")
        assert all(any(re.fullmatch(each, one) for one in allowed) for each in wanted), matcher
    for rule in routing["inhibit_rules"]:
        told = [_named(rule["source_matchers"]), *_named(rule["target_matchers"]).split("|")]
        assert all({*rule["equal"]} <= check(alerts()[each]["expr"], known()) for each in told), rule


def _named(matchers: list[str]) -> str:
    return re.search(r'"(.+)"', matchers[0])[1]  # type: ignore[index]


def _matchers(routing: Any) -> Iterator[str]:
    for route in routing["route"]["routes"]:
        yield from route["matchers"]
    for rule in routing["inhibit_rules"]:
        yield from (*rule["source_matchers"], *rule["target_matchers"])


def test_the_configuration_on_the_page_is_one(tmp_path: Path) -> None:
    (text,) = [each for each in blocks(FLEET_PAGE, "yaml") if "listen" in each]
    path = tmp_path / "balancerd.yaml"
    path.write_text(text, encoding="utf-8")
    loaded = loader.load(path)
    assert [each for each in loaded.findings if each.severity == "error"] == []
    assert not loaded.config.page.enabled


def test_every_reason_and_status_that_the_runbook_names_is_one() -> None:
    by_reason = SECTIONS["BalancerdRemoteStays"]
    reasons = re.findall(r"`([a-z]+(?:-[a-z]+)*)`", by_reason[by_reason.index("By reason.") :])
    reasons += re.findall(r"the reason\s+`([^`]+)`", ALERT_PAGE)
    assert len(reasons) > 8
    assert {*reasons} <= {*Reason}
    rows = re.findall(r"^\| (`.+?) \|", SECTIONS["BalancerdPagesFail"], re.MULTILINE)
    statuses = re.findall(r"`([a-z-]+)`", " ".join(rows))
    (watched,) = re.findall(r'status=~"([^"]+)"', alerts()["BalancerdPagesFail"]["expr"])
    assert {*statuses} == {*watched.split("|")} <= {*PageStatus}


@every_page
def test_every_panel_that_a_page_sends_to_is_on_a_dashboard(name: str) -> None:
    shown = {panel["title"] for each in SHIPPED.values() for panel in (*each["panels"], *panels(each))}
    prose = re.sub(r"^ *```.*?^ *```$|`[^`\n]+`", "", PAGES[name], flags=re.MULTILINE | re.DOTALL)
    named = re.findall(r'"([A-Z][^"]+)"', prose)
    assert named
    assert {*(" ".join(each.split()) for each in named)} <= shown
