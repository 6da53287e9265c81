"""What the RPM package is made of, as far as that is known before it is built; see tests/packages."""

import re
from pathlib import Path

from balancerd import __version__

ROOT = Path(__file__).parents[2]
SPEC = (ROOT / "deploy/rpm/balancerd.spec").read_text(encoding="utf-8")
OF_RPM = {
    *("_bindir", "_sysconfdir", "_datadir", "_mandir", "buildroot", "dist", "nil", "name", "version"),
    *("SOURCE1", "bundled_python", "autosetup", "systemd_requires"),
}
"""Macros that rpm itself has, or the spec, or that may be missing."""

SECTIONS = {"description", "prep", "build", "install", "pre", "post", "preun", "postun", "files", "changelog"}
WORDS = {"global", "dir", "config", "doc", "license", "attr"}


def test_the_package_has_the_version_of_the_code() -> None:
    assert re.findall(r"^Version: +(.+)$", SPEC, re.MULTILINE) == [__version__]
    assert re.findall(r"^\* .*> - (.+)-1$", SPEC, re.MULTILINE) == [__version__]


def test_its_licenses_are_those_that_the_debian_package_tells_of() -> None:
    (told,) = re.findall(r"^License: +(.+)$", SPEC, re.MULTILINE)
    text = (ROOT / "deploy/debian/copyright").read_text(encoding="utf-8")
    wanted = {
        one for each in re.findall(r"^License: (.+)$", text, re.MULTILINE) for one in re.split(" and | or ", each)
    }
    assert set(told.split(" AND ")) == wanted
    lint = (ROOT / "deploy/rpm/rpmlint.toml").read_text(encoding="utf-8")
    assert all(f'"{each}"' in lint for each in wanted)


def test_every_macro_of_systemd_has_a_stand_in_for_a_build_on_debian() -> None:
    macros = {*re.findall(r"%\{[?!]*(\w+)", SPEC), *re.findall(r"^%(\w+)", SPEC, re.MULTILINE)}
    defined = re.findall(r"^%(\w+)", (ROOT / "deploy/rpm/macros.systemd").read_text(encoding="utf-8"), re.MULTILINE)
    assert macros - OF_RPM - SECTIONS - WORDS == {*defined} - {"systemd_requires"}
