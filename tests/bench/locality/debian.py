"""Debian's packages of the real programs: fetched and unpacked, never installed, with the libraries this machine lacks.

Owns where they lie and what they need to run from there. Must not know how any of them is used.
"""

import gzip
import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.lab.packages import dependencies, dependency, refresh, unpack
from tests.lab.state import LabError, lab_directory

REDIS = ("redis-server", "redis-tools")
NUMPY = "python3-numpy"
POSTGRES, POSTGRES_CLIENT = "postgresql", "postgresql-client"
"""Names that depend on the package of the one release that Debian has."""

LINKED = ("usr/bin/redis-*", "usr/lib/postgresql/*/bin/*", "usr/lib/python3/dist-packages/numpy/**/*.so")
"""What of a package is linked against shared libraries."""

_NOT_FOUND = re.compile(r"^\s*(\S+) => not found$", re.MULTILINE)
_SONAME = re.compile(r"(?P<name>.+)\.so\.(?P<version>[0-9]+)")
_CHANGELOG = re.compile(r"\S+ \(([^)]+)\)")


def folder(cache: Path) -> Path:
    """Where the packages lie; apart from the lab's own, since what is here is on the library path."""
    return cache / "programs"


def find_tree(package: str) -> Path:
    """Where a package is unpacked, or the one whose name goes on with a number; raises LabError when there is none."""
    here = folder(lab_directory().packages)
    found = [here / package, *sorted(here.glob(f"{package}-[0-9]*"))]
    tree = next((path for path in reversed(found) if path.is_dir()), None)
    if tree is None:
        raise LabError(f"{package} is not unpacked under {here}: ensure_programs() does it, outside")
    return tree


def environment() -> dict[str, str]:
    """What the programs find in their environment, besides what they need of their own."""
    path = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    libraries = library_path(folder(lab_directory().packages))
    return {**path, "LD_LIBRARY_PATH": libraries} if libraries else path


def library_path(programs: Path) -> str:
    """Return the folders of the unpacked libraries, in the words of ld.so(8); empty when this machine lacked none."""
    return ":".join(sorted({str(path.parent) for path in programs.glob("lib*/usr/lib/**/*.so.*")}))


def ensure(cache: Path) -> None:
    """Unpack under `cache` what is not there yet. Raises LabError when apt does not know it or cannot fetch it."""
    here = folder(cache)
    packages = [*REDIS, NUMPY, *(_numbered(name, here) for name in (POSTGRES, POSTGRES_CLIENT))]
    for package in packages:
        unpack(package, here)
    for package in packages:
        ensure_libraries(package, here)


def ensure_libraries(package: str, here: Path) -> None:
    """Unpack the shared libraries that `package` wants and the loader does not find. Raises LabError."""
    known: tuple[str, ...] | None = None
    while missing := missing_libraries(_linked(here / package), library_path(here)):
        known = dependencies(package) if known is None else known
        chosen = {name for soname in missing if (name := provider(soname, known)) and not (here / name).exists()}
        if not chosen:
            raise LabError(f"{package} needs {', '.join(sorted(missing))}, and no dependency of it is named like that")
        for name in sorted(chosen):
            unpack(name, here)


def missing_libraries(files: Iterable[Path], path: str) -> set[str]:
    """Return the sonames that `files`, or libraries of theirs, need and that ldd(1) does not find."""
    asked = ["ldd", *map(str, files)]
    variables = {**os.environ, "LC_ALL": "C", **({"LD_LIBRARY_PATH": path} if path else {})}
    told = subprocess.run(asked, env=variables, capture_output=True, text=True, check=False).stdout
    return parse_missing(told)


def parse_missing(text: str) -> set[str]:
    """Return what ldd(1) did not find."""
    return set(_NOT_FOUND.findall(text))


def provider(soname: str, packages: Iterable[str]) -> str | None:
    """Return the package that by its name holds a library (Debian policy 8.1), or one of its family; None: no one."""
    parts = _SONAME.match(soname.lower().replace("_", "-"))
    if parts is None:
        return None
    name, version = parts["name"], parts["version"]
    exact = f"{name}-{version}" if name[-1].isdigit() else f"{name}{version}"
    families = {package: re.sub(r"[-.0-9]+$", "", package) for package in packages if package.startswith("lib")}
    if exact in families:
        return exact
    fitting = [package for package, family in families.items() if len(family) > len("libc") and name.startswith(family)]
    return max(fitting, key=lambda package: (len(families[package]), package), default=None)


def versions(cache: Path) -> Mapping[str, str]:
    """Return the version of each unpacked package, as its changelog tells; who keeps none of its own is left out."""
    found = {}
    for tree in sorted(path for path in folder(cache).glob("*") if path.is_dir()):
        changelog = tree / "usr/share/doc" / tree.name / "changelog.Debian.gz"
        if changelog.is_file():
            with gzip.open(changelog, "rt", encoding="utf-8") as lines:
                version = parse_changelog(next(lines, ""))
            if version is not None:
                found[tree.name] = version
    return found


def parse_changelog(line: str) -> str | None:
    """Return the version that the first line of a Debian changelog names; None when it names none."""
    match = _CHANGELOG.match(line)
    return match[1] if match else None


def _linked(tree: Path) -> list[Path]:
    return sorted(path for pattern in LINKED for path in tree.glob(pattern) if path.is_file())


def _numbered(name: str, here: Path) -> str:
    present = sorted(path.name for path in here.glob(f"{name}-[0-9]*"))
    if present:
        return present[-1]
    package = dependency(name, f"{name}-")
    if package is None:
        refresh()
        package = dependency(name, f"{name}-")
    if package is None:
        raise LabError(f"apt knows no {name}")
    return package
