"""What users of pip get: a source archive, and a wheel made of nothing else, one for every Python from 3.11 on."""

import hashlib
import os
import platform
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
FOLDERS = ("balancerd", "config", "deploy", "docs", "systemd")
FILES = ("CHANGELOG.md", "LICENSE", "MANIFEST.in", "Makefile", "README.md", "pyproject.toml", ".containerignore")
SHIPPED = "balancerd/cli/service/shipped"
BUILD = 'import sys; sys.path.insert(0, "balancerd/native"); import backend; backend.build_sdist(sys.argv[1])'


def tracked() -> list[str]:
    """The files that the archive is made of; links to folders are among them."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *FOLDERS, *FILES]
    listed = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout.split()
    return [name for name in listed if (REPOSITORY / name).exists()]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    source = folder / "source"
    for name in tracked():
        ours, copy = REPOSITORY / name, source / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if ours.is_symlink():
            copy.symlink_to(ours.readlink())
        else:
            copy.write_bytes(ours.read_bytes())
    subprocess.run([sys.executable, "-c", BUILD, folder], cwd=source, check=True, capture_output=True)
    (path,) = folder.glob("*.tar.gz")
    return path


@pytest.fixture(scope="module")
def wheel(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(archive, tmp_path_factory.mktemp("wheel"))


def build(archive: Path, folder: Path) -> Path:
    """Build the wheel; pip unpacks the archive into a folder of another name each time."""
    built = ["wheel", "-q", "--no-deps", "--no-build-isolation", "--no-cache-dir", "-w", str(folder), str(archive)]
    of_when = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    subprocess.run([sys.executable, "-m", "pip", *built], check=True, capture_output=True, env=of_when)
    (path,) = folder.glob("*.whl")
    return path


def test_the_same_sources_give_the_same_bytes_wherever_they_lie(archive: Path, wheel: Path, tmp_path: Path) -> None:
    again = build(archive, tmp_path)
    assert hashlib.sha256(again.read_bytes()).hexdigest() == hashlib.sha256(wheel.read_bytes()).hexdigest()


def test_the_source_archive_holds_what_packages_are_made_of_and_nothing_else(archive: Path) -> None:
    with tarfile.open(archive) as opened:
        held = {member.name.partition("/")[2] for member in opened if not member.isdir()}
        assert [member.name for member in opened if not (member.isfile() or member.isdir())] == []
    wanted = {name for name in tracked() if not (REPOSITORY / name).is_dir()}
    assert wanted - held == set()
    made = {"PKG-INFO", "setup.cfg", *(name for name in held if name.startswith("balancerd.egg-info/"))}
    copied = {f"{SHIPPED}/{name}" for name in wanted if name.startswith("systemd/")}
    assert held - wanted == {*made, *copied, f"{SHIPPED}/config/balancerd.yaml"}


def test_one_wheel_serves_every_python_from_3_11_on(wheel: Path) -> None:
    assert "-cp311-abi3-linux_" in wheel.name


def test_every_linux_with_glibc_2_17_takes_it_as_it_is(wheel: Path, tmp_path: Path) -> None:
    programs = Path(sys.executable).parent
    done = subprocess.run(
        [programs / "auditwheel", "repair", "--plat", f"manylinux_2_17_{platform.machine()}", "-w", tmp_path, wheel],
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (told,) = tmp_path.glob("balancerd-*-cp311-abi3-*manylinux_2_17_*.whl")
    names = {name for name in zipfile.ZipFile(told).namelist() if not name.endswith("/")}
    assert names == set(zipfile.ZipFile(wheel).namelist()), "no library had to come along"


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(p.relative_to(REPOSITORY)) for p in REPOSITORY.glob("balancerd/**/*.py")}
    scenarios = {str(p.relative_to(REPOSITORY)) for p in REPOSITORY.glob("balancerd/simulation/scenarios/*.yaml")}
    web = {str(p.relative_to(REPOSITORY)) for p in REPOSITORY.glob("balancerd/web/files/*")}
    assert modules | scenarios | web <= names
    shipped = {name.removeprefix(f"{SHIPPED}/") for name in names if name.startswith(SHIPPED)}
    units = {str(p.relative_to(REPOSITORY)) for p in (REPOSITORY / "systemd").rglob("*.*") if p.is_file()}
    assert shipped == {*units, "config/balancerd.yaml"}
    assert scenarios
    assert web
    assert "balancerd/native/_core.abi3.so" in names
    assert "balancerd/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"balancerd"}


def test_the_installed_wheel_runs_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    install = ["install", "-q", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, capture_output=True)
    code = (
        f"import sys; sys.path.insert(0, {str(target)!r})\n"
        "import os, balancerd, balancerd.kernel.placement.reader as p\n"
        f"assert balancerd.__file__.startswith({str(target)!r}), balancerd.__file__\n"
        "sample = p.estimate(os.getpid())\n"
        "print(sum(sample.bytes_by_node.values()) > 1 << 20)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout == "True\n"
