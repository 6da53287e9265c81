"""The wheel that users get: built from pyproject alone, one for every Python from 3.11 on, complete and importable."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    listed = subprocess.run(
        [
            "git",
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "balancerd",
            "pyproject.toml",
            "README.md",
            "LICENSE",
        ],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    for name in listed:
        if (REPOSITORY / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((REPOSITORY / name).read_bytes())
    built = ["wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source)]
    subprocess.run([sys.executable, "-m", "pip", *built], check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def test_one_wheel_serves_every_python_from_3_11_on(wheel: Path) -> None:
    assert "-cp311-abi3-linux_" in wheel.name


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(p.relative_to(REPOSITORY)) for p in REPOSITORY.glob("balancerd/**/*.py")}
    scenarios = {str(p.relative_to(REPOSITORY)) for p in REPOSITORY.glob("balancerd/simulation/scenarios/*.yaml")}
    web = {str(p.relative_to(REPOSITORY)) for p in REPOSITORY.glob("balancerd/web/files/*")}
    assert modules | scenarios | web <= names
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
