"""What the Debian package is made of, as far as that is known before it is built."""

import importlib.util
import marshal
import re
import venv
from pathlib import Path
from types import ModuleType

import pytest

from balancerd import __version__

ROOT = Path(__file__).parents[2]
DEBIAN = ROOT / "deploy" / "debian"
PLACE = Path("/opt/somewhere")
UNCHECKED_HASH = 0b01  # PEP 552


@pytest.fixture(scope="module")
def settle() -> ModuleType:
    spec = importlib.util.spec_from_file_location("settle", ROOT / "deploy/packages/settle.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A virtual environment as pip leaves it, with a package of one module and two programs."""
    path = tmp_path / "built"
    venv.create(path, symlinks=True, with_pip=False)
    packages = next(path.glob("lib/python*/site-packages"))
    (packages / "it.py").write_text("def where():\n    return where.__code__.co_filename\n")
    information = packages / "it-1.0.dist-info"
    information.mkdir()
    for name in ("RECORD", "INSTALLER", "direct_url.json", "METADATA"):
        (information / name).write_text(f"file://{path}" if name == "direct_url.json" else name)
    for name in ("balancerd", "balancerctl", "pygmentize"):
        (path / "bin" / name).write_text(f"#!{path}/bin/python3\nimport it\n")
    assert str(path) in (path / "bin/activate").read_text()
    return path


def test_the_package_has_the_version_of_the_code() -> None:
    first = (DEBIAN / "changelog").read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith(f"balancerd ({__version__}) ")


def test_the_copyright_file_names_every_package_of_the_bundle() -> None:
    text = (DEBIAN / "copyright").read_text(encoding="utf-8")
    told = set(re.findall(r"site-packages/(\w+)\*", text))
    bundled = set(re.findall(r"^([\w-]+)==", (ROOT / "deploy/requirements/top.txt").read_text(), re.MULTILINE))
    assert {name.replace("-", "_") for name in bundled} <= told


def test_an_environment_is_settled_elsewhere(settle: ModuleType, built: Path) -> None:
    assert settle.main(built, PLACE) == 0
    assert {path.name for path in (built / "bin").iterdir()} >= {"balancerd", "balancerctl", "python3"}
    assert not (built / "bin/pygmentize").exists()
    assert (built / "bin/balancerd").read_text() == f"#!{PLACE}/bin/python3\nimport it\n"
    assert {path.name for path in built.glob("lib/*/site-packages/*.dist-info/*")} == {"METADATA"}
    texts = [path for path in built.rglob("*") if path.is_file() and str(built).encode() in path.read_bytes()]
    assert texts == []


def test_byte_code_is_taken_for_current_whatever_the_time_of_its_source(settle: ModuleType, built: Path) -> None:
    settle.main(built, PLACE)
    (source,) = built.glob("lib/python*/site-packages/it.py")
    data = Path(importlib.util.cache_from_source(source)).read_bytes()
    assert int.from_bytes(data[4:8], "little") == UNCHECKED_HASH
    assert marshal.loads(data[16:]).co_filename == str(PLACE / source.relative_to(built))  # noqa: S302 - made above


def test_what_still_names_the_folder_of_the_build_is_refused(settle: ModuleType, built: Path) -> None:
    (next(built.glob("lib/python*/site-packages")) / "stray.txt").write_text(f"from {built}")
    with pytest.raises(SystemExit, match=r"stray\.txt"):
        settle.main(built, PLACE)


def test_programs_are_those_of_the_project(settle: ModuleType) -> None:
    scripts = re.search(r"\[project\.scripts\]\n((?:\w+ = .*\n)+)", (ROOT / "pyproject.toml").read_text())
    assert scripts is not None
    assert {line.split(" ")[0] for line in scripts[1].splitlines()} == settle.SCRIPTS
