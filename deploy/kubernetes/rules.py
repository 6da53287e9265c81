"""The rules and alerts of deploy/prometheus as a PrometheusRule: `python -m deploy.kubernetes.rules` writes it anew.

Owns what an operator of Prometheus wants around the groups. The rules themselves are written in deploy/prometheus only.
"""

from pathlib import Path
from typing import Any, Final

import yaml

DEPLOY: Final = Path(__file__).parents[1]
SOURCES: Final = (DEPLOY / "prometheus/balancerd.rules.yml", DEPLOY / "prometheus/balancerd.alerts.yml")
TARGET: Final = DEPLOY / "kubernetes/overlays/prometheus-operator/prometheusrule.yaml"
HEADER: Final = "# Written by python -m deploy.kubernetes.rules from deploy/prometheus; do not edit.\n"


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks."""


def _write_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _write_text)


def document() -> dict[str, Any]:
    """Return the PrometheusRule: the groups of all files, in their order. Raises OSError."""
    groups = [group for path in SOURCES for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "balancerd", "labels": {"app.kubernetes.io/name": "balancerd"}},
        "spec": {"groups": groups},
    }


def render() -> str:
    """Return the file as it should be."""
    return HEADER + yaml.dump(document(), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
