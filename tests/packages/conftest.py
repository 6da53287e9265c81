"""The two packages, read by the tools of their own formats, and unpacked."""

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

DIST = Path(__file__).parents[2] / "dist"


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """What a package tells of itself. `modes` are as ls(1) shows them; `owners` are USER:GROUP; both by path."""

    modes: Mapping[str, str]
    owners: Mapping[str, str]
    kept: frozenset[str]
    requires: frozenset[str]
    scripts: Mapping[str, str]
    root: Path


def told(*words: str | Path) -> str:
    """What a command prints. CalledProcessError when it fails."""
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def the_one(pattern: str) -> Path:
    """The file of that name in dist/."""
    (found,) = DIST.glob(pattern)
    return found


@pytest.fixture(scope="session")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Package:
    path, root = the_one("*.deb"), tmp_path_factory.mktemp("deb")
    told("dpkg-deb", "--raw-extract", path, root)
    outside = (root / "DEBIAN").rename(root.with_name("control"))
    lines = [re.split(r"\s+", line, maxsplit=5) for line in told("dpkg-deb", "--contents", path).splitlines()]
    names = [re.sub(r" -> .*", "", line[5]).removeprefix(".").rstrip("/") or "/" for line in lines]
    depends = told("dpkg-deb", "--field", path, "Depends").strip()
    return Package(
        modes={name: line[0] for name, line in zip(names, lines, strict=True)},
        owners={name: line[1].replace("/", ":") for name, line in zip(names, lines, strict=True)},
        kept=frozenset((outside / "conffiles").read_text(encoding="utf-8").split()),
        requires=frozenset(re.split(r"[ ,|]", need)[0] for need in depends.split(", ")),
        scripts={name: (outside / name).read_text(encoding="utf-8") for name in ("postinst", "prerm", "postrm")},
        root=root,
    )


@pytest.fixture(scope="session")
def rpm(tmp_path_factory: pytest.TempPathFactory) -> Package:
    path, root = the_one("*[!c].rpm"), tmp_path_factory.mktemp("rpm")
    archive = root.with_name("rpm.tgz")
    with path.open("rb") as packed, archive.open("wb") as unpacked:
        subprocess.run(["rpm2archive", "-"], stdin=packed, stdout=unpacked, check=True)
    told("tar", "-xzf", archive, "-C", root, "--no-same-owner")
    form = r"[%{FILEMODES:perms} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILEFLAGS:fflags}. %{FILENAMES}\n]"
    lines = [line.split(" ", 3) for line in told("rpm", "-qp", "--qf", form, path).splitlines()]
    parts = ("PREIN", "POSTIN", "PREUN", "POSTUN")
    return Package(
        modes={name: mode for mode, _, _, name in lines},
        owners={name: owner for _, owner, _, name in lines},
        kept=frozenset(name for _, _, flags, name in lines if flags == "cn."),
        requires=frozenset(line.split(" ")[0] for line in told("rpm", "-qp", "--requires", path).splitlines()),
        scripts={part: told("rpm", "-qp", "--qf", f"%{{{part}}}", path) for part in parts},
        root=root,
    )


@pytest.fixture(params=["deb", "rpm"])
def package(request: pytest.FixtureRequest) -> Package:
    """Each of the two."""
    found: Package = request.getfixturevalue(request.param)
    return found
