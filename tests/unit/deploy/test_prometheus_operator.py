"""What an operator of Prometheus is given: rules and dashboards as they are shipped, and which pods are asked."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from deploy.kubernetes import rules
from tests.unit.deploy.kustomize import ROOT, render
from tests.unit.deploy.test_kubernetes import MOST_APPLIED_BYTES, VERSIONS

CRDS = Path(__file__).parent / "crds"
OPERATOR = "overlays/prometheus-operator"


def the(kind: str) -> dict[str, Any]:
    (found,) = (each for each in render(OPERATOR) if each["kind"] == kind)
    return found


@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
def test_every_object_is_valid_and_has_no_unknown_field(version: str) -> None:
    kinds = set()
    for each in render(OPERATOR):
        kinds.add(each["kind"])
        schema = CRDS / f"{each['kind'].lower()}.json"
        if schema.exists():
            jsonschema.validate(each, json.loads(schema.read_bytes()))
        else:
            assert kubernetes_validate.validate(each, version, strict=True) == version
        assert each["metadata"]["namespace"] == "balancerd"
        assert len(json.dumps(each)) < MOST_APPLIED_BYTES
    assert kinds == {"PodMonitor", "PrometheusRule", "ConfigMap"}


def test_the_rules_are_those_that_are_shipped() -> None:
    assert rules.TARGET.read_text(encoding="utf-8") == rules.render()
    shipped = [
        group
        for name in ("balancerd.rules.yml", "balancerd.alerts.yml")
        for group in yaml.safe_load((ROOT / "deploy/prometheus" / name).read_text(encoding="utf-8"))["groups"]
    ]
    assert len(shipped) > 4
    assert the("PrometheusRule")["spec"]["groups"] == shipped


def test_the_dashboards_are_those_that_are_shipped_and_found_by_grafana() -> None:
    dashboards = [each for each in render(OPERATOR) if each["kind"] == "ConfigMap"]
    assert {each["metadata"]["labels"]["grafana_dashboard"] for each in dashboards} == {"1"}
    texts = {text for each in dashboards for text in each["data"].values()}
    assert texts == {path.read_text(encoding="utf-8") for path in (ROOT / "deploy/grafana").glob("*.json")}


def test_the_monitor_finds_the_pods_and_names_their_job_and_ring() -> None:
    spec = the("PodMonitor")["spec"]
    (endpoint,) = spec["podMetricsEndpoints"]
    scrape = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    (job,) = scrape["scrape_configs"]
    for each in render("overlays/rollout"):
        if each["kind"] == "DaemonSet":
            labels = each["spec"]["template"]["metadata"]["labels"]
            assert spec["selector"]["matchLabels"].items() <= labels.items()
            assert labels[spec["jobLabel"]] == job["job_name"]
            assert set(spec["podTargetLabels"]) <= labels.keys()
            (container,) = each["spec"]["template"]["spec"]["containers"]
            assert endpoint["port"] in {port["name"] for port in container["ports"]}
    (static,) = job["static_configs"]
    given = {"ring", *(relabeling["targetLabel"] for relabeling in endpoint["relabelings"])}
    assert given == {"instance", *static["labels"]}
    assert (endpoint["interval"], endpoint["scrapeTimeout"]) == tuple(
        scrape["global"][key] for key in ("scrape_interval", "scrape_timeout")
    )


def test_the_fleet_is_the_rollout_watched_by_the_operator() -> None:
    fleet = [json.dumps(each, sort_keys=True) for each in render("overlays/fleet")]
    parts = [json.dumps(o, sort_keys=True) for name in ("overlays/rollout", OPERATOR) for o in render(name)]
    assert sorted(fleet) == sorted(parts)


def test_the_patch_of_the_page_names_the_cluster() -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    blocks = [yaml.safe_load(text) for text in re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)]
    (block,) = (block for block in blocks if "patches" in block)
    (operation,) = yaml.safe_load(block["patches"][0]["patch"])
    target: Any = the("PodMonitor")
    for word in operation["path"].split("/")[1:-1]:
        target = target[int(word) if word.isdigit() else word]
    assert target["targetLabel"] == "cluster"
    assert target["replacement"] == "here"
