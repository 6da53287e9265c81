"""Which unit says where its memory belongs: files, templates, drop-ins, and which of them wins (systemd.unit(5))."""

import os
from pathlib import Path

import pytest

from balancerd.kernel.neighbours.units import UnitFiles, parse_unit
from tests.unit.kernel.trees import write_tree

ETC, RUN, LIB = "etc/systemd/system", "run/systemd/system", "usr/lib/systemd/system"
BIND = "[Service]\nNUMAPolicy=bind\nNUMAMask=0\n"


def units(root: Path, files: dict[str, str]) -> UnitFiles:
    found = UnitFiles(str(write_tree(root, files)))
    found.look()
    return found


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("[Unit]\nDescription=x\n", ()),
        (BIND, (("NUMAPolicy", "bind"), ("NUMAMask", "0"))),
        ("[Slice]\n  AllowedMemoryNodes = 0-1 \r\n", (("AllowedMemoryNodes", "0-1"),)),
        ("#NUMAPolicy=bind\n; NUMAMask=0\nX=NUMAPolicy=bind\n", ()),
        ("NUMAPolicy=\n", (("NUMAPolicy", ""),)),
        ("StartupAllowedMemoryNodes=0\n", ()),
        ("\udcff NUMAPolicy", ()),
    ],
)
def test_the_assignments_that_matter_are_found(text: str, settings: tuple[tuple[str, str], ...]) -> None:
    assert parse_unit(text.encode("utf-8", "surrogateescape")) == settings


@pytest.mark.parametrize(
    ("unit", "files", "told"),
    [
        ("a.service", {f"{LIB}/a.service": BIND}, f"unit a.service: NUMAPolicy=bind NUMAMask=0 in /{LIB}/a.service"),
        ("b.service", {f"{LIB}/a.service": BIND}, ""),
        ("a.service", {f"{LIB}/a.service": BIND, f"{ETC}/a.service": "[Service]\n"}, ""),  # replaced as a whole
        (
            "a.service",
            {f"{LIB}/a.service": BIND, f"{ETC}/a.service.d/x.conf": "NUMAPolicy=interleave\nNUMAMask=all\n"},
            f"unit a.service: NUMAPolicy=interleave NUMAMask=all in /{ETC}/a.service.d/x.conf",
        ),
        ("a.service", {f"{LIB}/a.service": BIND, f"{ETC}/a.service.d/x.conf": "NUMAPolicy=\n"}, ""),
        ("a.service", {f"{LIB}/a.service": "NUMAPolicy=local\n"}, ""),  # what balancerd does anyway
        ("a.service", {f"{LIB}/a.service": "NUMAPolicy=default\nNUMAMask=0\n"}, ""),
        (
            "a.service",  # of two drop-ins of one name the better directory's counts, and later names win
            {
                f"{LIB}/a.service.d/10.conf": BIND,
                f"{ETC}/a.service.d/10.conf": "[Service]\n",
                f"{RUN}/a.service.d/05.conf": "AllowedMemoryNodes=1\n",
            },
            f"unit a.service: AllowedMemoryNodes=1 in /{RUN}/a.service.d/05.conf",
        ),
        (
            "a.service",
            {f"{LIB}/a.service.d/10.conf": BIND, f"{ETC}/a.service.d/20.conf": "NUMAPolicy=default\n"},
            "",
        ),
        (
            "a@1.service",
            {f"{LIB}/a@.service": BIND},
            f"unit a@1.service: NUMAPolicy=bind NUMAMask=0 in /{LIB}/a@.service",
        ),
        ("a@1.service", {f"{LIB}/a@.service": BIND, f"{ETC}/a@1.service": "[Service]\n"}, ""),
        (
            "a@1.service",
            {f"{ETC}/a@.service.d/x.conf": "AllowedMemoryNodes=0\n"},
            f"unit a@1.service: AllowedMemoryNodes=0 in /{ETC}/a@.service.d/x.conf",
        ),
        (
            "a-b-c.service",
            {f"{ETC}/a-.service.d/x.conf": "AllowedMemoryNodes=0\n"},
            f"unit a-b-c.service: AllowedMemoryNodes=0 in /{ETC}/a-.service.d/x.conf",
        ),
        (
            "a.service",
            {f"{ETC}/service.d/x.conf": "NUMAPolicy=preferred\n"},
            f"unit a.service: NUMAPolicy=preferred in /{ETC}/service.d/x.conf",
        ),
        ("a.slice", {f"{ETC}/service.d/x.conf": "NUMAPolicy=preferred\n"}, ""),
        (
            "big.slice",
            {"etc/systemd/system.control/big.slice.d/50-x.conf": "[Slice]\nAllowedMemoryNodes=0\n"},
            "unit big.slice: AllowedMemoryNodes=0 in /etc/systemd/system.control/big.slice.d/50-x.conf",
        ),
        (
            "run-1.service",
            {"run/systemd/transient/run-1.service": BIND},
            "run-1.service: NUMAPolicy=bind NUMAMask=0 in /run",
        ),
    ],
)
def test_what_a_unit_says_is_what_systemd_makes_of_its_files(
    tmp_path: Path, unit: str, files: dict[str, str], told: str
) -> None:
    said = units(tmp_path, files).explain(unit).replace(str(tmp_path), "")
    assert said == told or (told.startswith("run-1") and said.startswith(f"unit {told}"))


def test_every_unit_that_places_memory_is_listed(tmp_path: Path) -> None:
    files = {
        f"{LIB}/a.service": BIND,
        f"{LIB}/b.service": "[Service]\n",
        f"{ETC}/c.slice.d/x.conf": "AllowedMemoryNodes=0\n",
    }
    files |= {f"{LIB}/d.service": BIND, f"{ETC}/d.service.d/x.conf": "NUMAPolicy=\n", f"{LIB}/README": BIND}
    assert units(tmp_path, files).placed_units == ("a.service", "c.slice")


def test_a_changed_directory_is_read_again_and_no_other(tmp_path: Path) -> None:
    found = units(tmp_path, {f"{LIB}/a.service": "[Service]\n", f"{ETC}/a.service.d/x.conf": "[Service]\n"})
    assert not found.look()
    (tmp_path / f"{LIB}/a.service").write_text(BIND)  # in place: the directory does not tell
    assert not found.look()
    write_tree(tmp_path, {f"{ETC}/a.service.d/y.conf": "AllowedMemoryNodes=1\n"})
    os.utime(tmp_path / f"{ETC}/a.service.d", ns=(1, 1))
    assert found.look()
    assert found.explain("a.service").startswith("unit a.service: AllowedMemoryNodes=1 in ")
    for path in (tmp_path / f"{ETC}/a.service.d").iterdir():
        path.unlink()
    (tmp_path / f"{ETC}/a.service.d").rmdir()
    assert found.look()
    assert found.explain("a.service") == ""
    assert any(found.look() for _ in range(30))  # now and then everything is read again
    assert found.explain("a.service").startswith("unit a.service: NUMAPolicy=bind")


def test_on_a_merged_usr_nothing_is_read_twice(tmp_path: Path) -> None:
    write_tree(tmp_path, {f"{LIB}/a.service": BIND})
    (tmp_path / "lib").symlink_to("usr/lib")
    found = units(tmp_path, {})
    assert list(found._directories) == [f"{tmp_path}/{LIB}"]


def test_a_link_to_nowhere_says_nothing(tmp_path: Path) -> None:
    write_tree(tmp_path, {f"{ETC}/b.service": BIND})
    (tmp_path / f"{ETC}/a.service").symlink_to("/nowhere")
    assert units(tmp_path, {}).placed_units == ("b.service",)
