"""Renders deploy/kubernetes with the kubectl on PATH; for one older than 1.21 the same in the words that it knows."""

import functools
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
KUBERNETES = Path("deploy/kubernetes")
FIRST_MODERN_MINOR = 21
"""kubectl 1.21 brought kustomize 4; before it was 2.0.3, which took folders as `bases` only, other keys for patches."""


@functools.cache
def render(overlay: str) -> tuple[dict[str, Any], ...]:
    """The objects of a folder below deploy/kubernetes. Fails where kubectl fails or warns."""
    with tempfile.TemporaryDirectory() as scratch:
        root = ROOT if minor_version() >= FIRST_MODERN_MINOR else in_old_words(Path(scratch))
        done = subprocess.run(
            ["kubectl", "kustomize", root / KUBERNETES / overlay], capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return tuple(yaml.safe_load_all(done.stdout))


@functools.cache
def minor_version() -> int:
    """The minor version of the kubectl on PATH."""
    done = subprocess.run(
        ["kubectl", "version", "--client", "--output=json"], capture_output=True, text=True, check=True
    )
    return int(json.loads(done.stdout)["clientVersion"]["minor"].rstrip("+"))


def in_old_words(folder: Path) -> Path:
    """Copy what is rendered to a folder, for kustomize 2.0.3; returns the folder."""
    for name in ("config", "deploy"):
        shutil.copytree(ROOT / name, folder / name)
    for path in sorted(folder.rglob("kustomization.yaml")):
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
        resources = given.pop("resources", [])
        given["bases"] = [each for each in resources if (path.parent / each).is_dir()]
        given["resources"] = [each for each in resources if each not in given["bases"]]
        given["patchesStrategicMerge"] = patches = [patch["path"] for patch in given.pop("patches", [])]
        if suffix := given.pop("nameSuffix", ""):
            given["bases"] = [rename(path.parent, each, suffix, patches) for each in given["bases"]]
        path.write_text(json.dumps(given), encoding="utf-8")
    return folder


def rename(folder: Path, base: str, suffix: str, patches: list[str]) -> str:
    """Copy a base with the names in it and in its patches changed: with a suffix 2.0.3 finds no ConfigMap beside it.

    Returns where it is.
    """
    copied = folder / "renamed"
    shutil.copytree(folder / base, copied)
    for path in (copied / "daemonset.yaml", *(folder / patch for patch in patches)):
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        document["metadata"]["name"] += suffix
        path.write_text(json.dumps(document), encoding="utf-8")
    return copied.name
