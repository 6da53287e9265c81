"""python deploy/sbom.py REQUIREMENTS...: print a CycloneDX bill of materials of what a package bundles.

It is made of the hash-pinned requirement files and of pyproject.toml alone, so that anybody can make it again from the
sources, and compare: no time, no random number, no network. Standard library only, since packages are built with it.
"""

import json
import re
import sys
import tomllib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]

_PIN = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^\s;]+)(?:\s*;\s*(?P<marker>.+))?")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


class UnpinnedError(Exception):
    """A line names something without an exact version or without a hash; the message has file and line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """One distribution: the hashes of its files that may be installed, and where it is needed (None: everywhere)."""

    name: str
    version: str
    marker: str | None
    hashes: tuple[str, ...]

    @property
    def purl(self) -> str:
        """Its name as a package URL, see https://github.com/package-url/purl-spec."""
        return f"pkg:pypi/{re.sub(r'[-_.]+', '-', self.name).lower()}@{self.version}"


def parse_requirements(text: str, path: str) -> tuple[Pin, ...]:
    """Return what a requirement file pins. Raises UnpinnedError."""
    pins = []
    number = 1
    for joined in re.split(r"(?<!\\)\n", text):
        line = joined.replace("\\\n", " ").partition(" #")[0].strip()
        if line and not line.startswith("#"):
            head, *options = line.split(" --hash=", 1)
            pin, hashes = _PIN.fullmatch(head.strip()), _HASH.findall(" --hash=".join(("", *options)))
            if pin is None or not hashes:
                fix = "write NAME==VERSION with --hash=sha256:..., as deploy/requirements/lock does"
                raise UnpinnedError(f"{path}:{number}: not pinned by hash: {head.strip()!r}: {fix}")
            pins.append(Pin(**pin.groupdict(), hashes=tuple(sorted(hashes))))
        number += joined.count("\n") + 1
    return tuple(sorted(pins, key=lambda pin: pin.purl))


def build_sbom(project: dict[str, Any], pins: Sequence[Pin]) -> dict[str, Any]:
    """Return the document; the same pins give the same one."""
    reference = f"pkg:pypi/{project['name']}@{project['version']}"
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": reference,
                "name": project["name"],
                "version": project["version"],
                "description": project["description"],
                "licenses": [{"license": {"id": project["license"]}}],
                "purl": reference,
            }
        },
        "components": [_component(pin) for pin in pins],
        "dependencies": [
            {"ref": reference, "dependsOn": [pin.purl for pin in pins]},
            *({"ref": pin.purl} for pin in pins),
        ],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(document, sort_keys=True))
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": f"urn:uuid:{serial}", **document}


def _component(pin: Pin) -> dict[str, Any]:
    """One distribution; its hashes are those of the files that it may have been installed from, of which one was."""
    properties = [{"name": "balancerd:accepted-file:sha256", "value": each} for each in pin.hashes]
    if pin.marker is not None:
        properties.insert(0, {"name": "balancerd:marker", "value": pin.marker})
    return {
        "type": "library",
        "bom-ref": pin.purl,
        "name": pin.name,
        "version": pin.version,
        "purl": pin.purl,
        "properties": properties,
    }


def main(paths: Sequence[str]) -> int:
    """Print the document; 1 when a file is not pinned."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    try:
        pins = {pin for path in paths for pin in parse_requirements(Path(path).read_text(encoding="utf-8"), path)}
    except UnpinnedError as reason:
        print(reason, file=sys.stderr)  # noqa: T201 -- what a command says
        return 1
    document = build_sbom(project, sorted(pins, key=lambda pin: pin.purl))
    print(json.dumps(document, indent=1))  # noqa: T201 -- what it is asked for
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
