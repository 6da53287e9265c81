"""The dashboards for Grafana: generated, laid out, and every expression and label of theirs is one that there is."""

import json
import re
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.grafana import fleet, machine
from deploy.grafana.__main__ import FOLDER, documents
from deploy.grafana.costs import MEMORY_HIGH_BYTES
from deploy.grafana.panels import COLUMNS
from tests.unit.deploy.catalogue import families
from tests.unit.deploy.dashboards import SHIPPED, panels
from tests.unit.deploy.promql import VARIABLE, VARIABLES, check, without_variables
from tests.unit.deploy.shipped import ALERTS, ROOT, RULES, alerts, known

LEGEND = re.compile(r"\{\{(\w+)\}\}")
LABEL_VALUES = re.compile(r"label_values\((.+), (\w+)\)")

NOT_SHOWN = {
    "balancerd_config_last_reload_success_timestamp_seconds",  # balancerctl status; the alert is about the last one
    "balancerd_history_rows",  # its size is what is bounded in bytes, and shown
}


def expressions(document: Any) -> list[str]:
    """Every expression, with Grafana's variables."""
    return [target["expr"] for panel in panels(document) for target in panel["targets"]]


every_dashboard = pytest.mark.parametrize("name", SHIPPED)


def test_what_is_shipped_is_what_is_generated() -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    assert written == documents(), "write it anew: .venv/bin/python -m deploy.grafana"


@every_dashboard
def test_promtool_can_read_every_expression(name: str, tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:number:{number}", "expr": without_variables(each)}
        for number, each in enumerate(expressions(SHIPPED[name]))
    ]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": name, "rules": rules}]}), encoding="utf-8")
    done = subprocess.run(["promtool", "check", "rules", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"SUCCESS: {len(rules)} rules found" in done.stdout


@every_dashboard
def test_every_expression_asks_for_what_there_is_and_every_legend_has_its_label(name: str) -> None:
    for panel in panels(SHIPPED[name]):
        for target in panel["targets"]:
            labels = check(without_variables(target["expr"]), known())
            assert {*LEGEND.findall(target["legendFormat"])} <= labels, (panel["title"], target["expr"])


@every_dashboard
def test_every_column_of_a_table_has_its_label_and_every_query_its_column(name: str) -> None:
    for panel in panels(SHIPPED[name]):
        if panel["type"] != "table":
            continue
        labels = [check(without_variables(target["expr"]), known()) for target in panel["targets"]]
        merge, chosen, order = panel["transformations"]
        assert (merge["id"], chosen["id"], order["id"]) == ("merge", "filterFieldsByName", "organize")
        shown = [each for each in chosen["options"]["include"]["names"] if not each.startswith("Value")]
        assert all({*shown} <= each for each in labels), panel["title"]
        values = [f"Value #{target['refId']}" for target in panel["targets"]] if len(labels) > 1 else ["Value"]
        assert {*order["options"]["indexByName"]} == {*shown, *values}
        headings = {*order["options"]["renameByName"].values()}
        for override in panel["fieldConfig"]["overrides"]:
            assert override["matcher"]["options"] in headings


@every_dashboard
def test_every_variable_is_there_and_used_and_asks_for_a_label_that_there_is(name: str) -> None:
    document = SHIPPED[name]
    variables = {each["name"]: each for each in document["templating"]["list"]}
    used = {v.strip("${}") for each in expressions(document) for v in VARIABLE.findall(each) if v not in VARIABLES}
    queries = [each for each in variables.values() if each["type"] == "query"]
    for each in queries:
        asked = LABEL_VALUES.fullmatch(each["query"]["query"])
        assert asked is not None
        assert asked[2] in check(without_variables(asked[1]), known())
        assert asked[2] == each["name"]
        assert each["multi"] is each["includeAll"]
    assert used == {each["name"] for each in queries}
    for panel in panels(document):
        for target in panel["targets"]:
            for label, operator, variable in re.findall(r'(\w+)(=~?)"\$(\w+)"', target["expr"]):
                assert label == variable
                assert (operator == "=~") is variables[variable]["multi"]


@every_dashboard
def test_no_data_source_is_named_but_by_the_variable(name: str) -> None:
    text = json.dumps(SHIPPED[name])
    assert {*re.findall(r'"uid": "([^"]*)"', text)} == {SHIPPED[name]["uid"], "${datasource}"}
    for panel in panels(SHIPPED[name]):
        for asked in (panel, *panel["targets"]):
            assert asked["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert SHIPPED[name]["templating"]["list"][0]["type"] == "datasource"


@every_dashboard
def test_panels_stand_side_by_side_without_gaps_in_numbers(name: str) -> None:
    everything = [
        *SHIPPED[name]["panels"],
        *(each for row in SHIPPED[name]["panels"] for each in row.get("panels", ())),
    ]
    assert sorted(each["id"] for each in everything) == list(range(1, len(everything) + 1))
    places = [each["gridPos"] for each in everything]
    for place in places:
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= COLUMNS
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)


@every_dashboard
def test_what_an_operator_looks_at_first_is_on_top_and_every_panel_says_what_it_shows(name: str) -> None:
    document = SHIPPED[name]
    top = [panel for panel in document["panels"] if panel["gridPos"]["y"] == 0]
    assert document["panels"][len(top)]["type"] == "row"
    assert {panel["type"] for panel in top} == {"stat"}
    assert sum(panel["gridPos"]["w"] for panel in top) == COLUMNS
    assert any("ALERTS{" in target["expr"] for panel in top for target in panel["targets"])
    for panel in panels(document):
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert [target["refId"] for target in panel["targets"]] == [*"ABCDEFGH"[: len(panel["targets"])]]


def test_every_metric_is_shown_or_asked_for_by_an_alert_or_said_not_to_be() -> None:
    asked = " ".join(each for document in SHIPPED.values() for each in expressions(document))
    asked += " ".join(each["expr"] for each in alerts().values()) + RULES.read_text(encoding="utf-8")
    words = {re.sub(r"_(bucket|count|sum)$", "", word) for word in re.findall(r"\bbalancerd_\w+", asked)}
    assert families() - words == NOT_SHOWN


def test_a_machine_of_the_fleet_leads_to_its_own_dashboard() -> None:
    document = SHIPPED["fleet.json"]
    links = {
        value["url"]
        for panel in panels(document)
        for override in panel["fieldConfig"]["overrides"]
        for each in override["properties"]
        if each["id"] == "links"
        for value in each["value"]
    }
    (address,) = links
    assert address.startswith(f"/d/{SHIPPED['machine.json']['uid']}?")
    there = {each["name"] for each in SHIPPED["machine.json"]["templating"]["list"]}
    assert {*re.findall(r"var-(\w+)=", address)} <= there
    assert (document["uid"], SHIPPED["machine.json"]["uid"]) == (fleet.UID, machine.UID)


def test_the_line_of_memory_is_where_the_alert_and_the_unit_have_it() -> None:
    unit = (ROOT / "systemd" / "balancerd.service").read_text(encoding="utf-8")
    (high,) = re.findall(r"^MemoryHigh=(\d+)M$", unit, re.MULTILINE)
    assert int(high) << 20 == MEMORY_HIGH_BYTES
    assert f"* {high} * 2^20" in ALERTS.read_text(encoding="utf-8")
