"""What is installed: pinned by hash to the last package, and told in a bill of materials made of nothing else."""

import importlib.util
import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "deploy/requirements").glob("*.txt"))
INSTALLED = ("run.txt", "top.txt", "dev.txt", "optimum.txt", "build.txt")
"""All of what they name is in the environment of the tests."""

DIGEST = "a" * 64


@pytest.fixture(scope="module")
def sbom() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sbom", ROOT / "deploy/sbom.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["sbom"] = module
    spec.loader.exec_module(module)
    return module


def pins(sbom: ModuleType, name: str) -> dict[str, Any]:
    path = ROOT / "deploy/requirements" / name
    return {canonicalize_name(pin.name): pin for pin in sbom.parse_requirements(path.read_text(), name)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_package_is_pinned_by_hash(sbom: ModuleType, path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = sbom.parse_requirements(text, path.name)
    assert len(found) == len(re.findall(r"^\S", text, re.MULTILINE))
    assert sum(len(pin.hashes) for pin in found) == text.count("--hash=")


@pytest.mark.parametrize("name", INSTALLED)
def test_what_a_pinned_package_needs_is_pinned_too(sbom: ModuleType, name: str) -> None:
    pinned = pins(sbom, name)
    missing = []
    for its, pin in pinned.items():
        try:
            needs = metadata.requires(its) or []
        except metadata.PackageNotFoundError:
            assert pin.marker is not None, f"{its} is not installed"
            continue
        for need in map(Requirement, needs):
            if need.marker is not None and not need.marker.evaluate({"extra": ""}):
                continue
            held = pinned.get(canonicalize_name(need.name))
            if held is None or not need.specifier.contains(held.version, prereleases=True):
                missing.append(f"{its} needs {need}")
    assert missing == []


def test_the_same_package_is_the_same_in_every_file(sbom: ModuleType) -> None:
    seen: dict[str, tuple[str, frozenset[str]]] = {}
    for path in FILES:
        for name, pin in pins(sbom, path.name).items():
            assert seen.setdefault(name, (pin.version, frozenset(pin.hashes))) == (pin.version, frozenset(pin.hashes))


@pytest.mark.parametrize(
    "line",
    [
        "a==1",
        "a>=1 --hash=sha256:" + DIGEST,
        "a --hash=sha256:" + DIGEST,
        "-e .",
        "https://x/a.whl",
        "a==1 --hash=md5:0",
    ],
)
def test_a_line_without_version_or_hash_is_refused_with_its_number(sbom: ModuleType, line: str) -> None:
    good = f"b==2 \\\n    --hash=sha256:{DIGEST}\n"
    assert len(sbom.parse_requirements(good, "f")) == 1
    with pytest.raises(sbom.UnpinnedError, match=r"^f:4: not pinned by hash"):
        sbom.parse_requirements(f"# a comment\n{good}{line}\n", "f")


def test_the_bill_of_materials_names_what_the_package_bundles_and_is_always_the_same(sbom: ModuleType) -> None:
    command = [sys.executable, "deploy/sbom.py", "deploy/requirements/top.txt"]
    text, again = (
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout for _ in range(2)
    )
    assert text == again
    told = json.loads(text)
    assert (told["bomFormat"], told["specVersion"]) == ("CycloneDX", "1.6")
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", told["serialNumber"])
    bundled = pins(sbom, "top.txt")
    assert {(each["name"], each["version"]) for each in told["components"]} == {
        (pin.name, pin.version) for pin in bundled.values()
    }
    references = [told["metadata"]["component"]["bom-ref"], *(each["bom-ref"] for each in told["components"])]
    assert [each["ref"] for each in told["dependencies"]] == references
    assert told["dependencies"][0]["dependsOn"] == references[1:]


def test_packages_ship_that_of_what_they_bundle() -> None:
    script = (ROOT / "deploy/packages/install").read_text(encoding="utf-8")
    assert "install --no-compile --require-hashes -r deploy/requirements/top.txt" in script
    assert 'deploy/sbom.py deploy/requirements/top.txt >"$SHARE/balancerd/sbom.cdx.json"' in script
