import gzip
from pathlib import Path

import pytest

from tests.bench.locality import debian
from tests.lab.packages import parse_depends
from tests.lab.state import LabError

CAPTURED = Path(__file__).parent / "captured"
NUMPY_NEEDS = ("libblas3", "libatlas3-base", "libopenblas0-pthread", "libc6", "liblapack3", "libgfortran5", "python3")


def test_what_the_loader_does_not_find_is_told_from_what_it_finds() -> None:
    text = (CAPTURED / "ldd-redis-cli.txt").read_text(encoding="ascii")
    assert debian.parse_missing(text) == {"liblzf.so.1", "libjemalloc.so.2"}


def test_all_that_a_package_depends_on_is_told_without_virtual_packages() -> None:
    text = (CAPTURED / "apt-cache-depends-python3-numpy.txt").read_text(encoding="ascii")
    found = parse_depends(text)
    assert found[0] == "python3-numpy"
    assert {"libblas3", "liblapack3", "libopenblas0-pthread", "libgfortran5", "python3.11"} < set(found)
    assert not {name for name in found if name.startswith(("<", "|", " ")) or ":" in name}


@pytest.mark.parametrize(
    ("soname", "packages", "expected"),
    [
        ("libjemalloc.so.2", ("libc6", "libjemalloc2", "liblzf1"), "libjemalloc2"),
        ("libblas.so.3", NUMPY_NEEDS, "libblas3"),
        ("libgfortran.so.5", NUMPY_NEEDS, "libgfortran5"),
        ("libblas.so.3", ("libblas3", "libblas4"), "libblas3"),
        ("libldap-2.5.so.0", ("libldap-2.5-0", "liblz4-1"), "libldap-2.5-0"),
        ("liblz4.so.1", ("libldap-2.5-0", "liblz4-1"), "liblz4-1"),
        ("libgssapi_krb5.so.2", ("libgssapi-krb5-2", "libkrb5-3"), "libgssapi-krb5-2"),
        ("libicui18n.so.72", ("libicu72", "libic1"), "libicu72"),
        ("libcrypto.so.3", ("libssl3", "libc6"), None),
        ("libjemalloc.so.2", ("jemalloc2",), None),
        ("plugin", NUMPY_NEEDS, None),
    ],
)
def test_a_library_is_found_in_the_package_that_is_named_after_it(
    soname: str, packages: tuple[str, ...], expected: str | None
) -> None:
    assert debian.provider(soname, packages) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("redis (5:7.0.15-1~deb12u10) bookworm-security; urgency=high\n", "5:7.0.15-1~deb12u10"),
        ("lapack (3.11.0-2) unstable; urgency=medium\n", "3.11.0-2"),
        ("", None),
    ],
)
def test_a_changelog_begins_with_the_version(line: str, expected: str | None) -> None:
    assert debian.parse_changelog(line) == expected


def test_the_versions_are_those_of_the_packages_that_lie_there(tmp_path: Path) -> None:
    for package, line in {"redis-tools": "redis (5:7.0.15-1) x; u=low\n\n  * More.\n", "liblzf1": "y\n"}.items():
        doc = debian.folder(tmp_path) / package / "usr/share/doc" / package
        doc.mkdir(parents=True)
        (doc / "changelog.Debian.gz").write_bytes(gzip.compress(line.encode()))
    (debian.folder(tmp_path) / "libgfortran5").mkdir()
    assert debian.versions(tmp_path) == {"redis-tools": "5:7.0.15-1"}


def test_only_unpacked_libraries_are_on_the_library_path(tmp_path: Path) -> None:
    for name in ("libblas3/usr/lib/x/blas/libblas.so.3", "libblas3/usr/share/a.so.1", "python3-numpy/usr/lib/b.so.1"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    assert debian.library_path(tmp_path) == str(tmp_path / "libblas3/usr/lib/x/blas")


def test_libraries_are_fetched_until_the_loader_finds_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"": {"liblapack.so.3"}, "liblapack3": {"libgfortran.so.5"}, "libgfortran5": set[str]()}
    fetched = [""]
    monkeypatch.setattr(debian, "dependencies", lambda _: NUMPY_NEEDS)
    monkeypatch.setattr(debian, "missing_libraries", lambda *_: wanted[fetched[-1]])
    monkeypatch.setattr(debian, "unpack", lambda name, _: fetched.append(name))
    debian.ensure_libraries("python3-numpy", tmp_path)
    assert fetched == ["", "liblapack3", "libgfortran5"]


def test_a_library_that_its_package_does_not_bring_is_an_error_and_no_endless_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debian, "dependencies", lambda _: NUMPY_NEEDS)
    monkeypatch.setattr(debian, "missing_libraries", lambda *_: {"libblas.so.3"})
    monkeypatch.setattr(debian, "unpack", lambda name, here: (here / name).mkdir())
    with pytest.raises(LabError, match=r"libblas\.so\.3"):
        debian.ensure_libraries("python3-numpy", tmp_path)


def test_a_package_is_found_by_its_name_or_with_the_number_of_its_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BALANCERD_LAB_DIR", str(tmp_path))
    here = debian.folder(tmp_path / "packages")
    for name in ("redis-server", "postgresql-15", "postgresql-client-15"):
        (here / name).mkdir(parents=True)
    assert debian.find_tree("redis-server") == here / "redis-server"
    assert debian.find_tree("postgresql") == here / "postgresql-15"
    assert debian.find_tree("postgresql-client") == here / "postgresql-client-15"
    with pytest.raises(LabError, match="redis-tools is not unpacked"):
        debian.find_tree("redis-tools")
