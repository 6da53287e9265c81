"""The files for Prometheus as they are shipped: rules, alerts, and what is known once the rules are loaded."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.unit.deploy.catalogue import Series, catalogue
from tests.unit.deploy.promql import check

ROOT = Path(__file__).parents[3]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = PROMETHEUS / "balancerd.rules.yml"
ALERTS = PROMETHEUS / "balancerd.alerts.yml"


def groups(path: Path) -> list[dict[str, Any]]:
    """The groups of a file of rules."""
    found: list[dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    return found


def alerts() -> dict[str, dict[str, Any]]:
    """Every alert by its name."""
    return {rule["alert"]: rule for group in groups(ALERTS) for rule in group["rules"]}


def records() -> dict[str, str]:
    """The expression of every recording rule by its name, in the order of the file."""
    return {rule["record"]: rule["expr"] for group in groups(RULES) for rule in group["rules"]}


@functools.cache
def known() -> Mapping[str, Series]:
    """Every name that an alert or a dashboard may use: the catalogue, and the rules, each made of what is above it."""
    names = catalogue()
    for name, expression in records().items():
        names[name] = Series(kind="gauge", labels=check(expression, names))
    return names
