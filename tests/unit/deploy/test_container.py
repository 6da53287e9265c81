"""The image's build, without an engine: its file is linted, and its steps run on what it copies and nothing else."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dockerfile_parse import DockerfileParser

from balancerd import __version__

ROOT = Path(__file__).parents[3]
FILE = ROOT / "deploy" / "container" / "Containerfile"
HADOLINT = Path(sys.executable).with_name("hadolint")
COMPILERS = ("gcc", "cc", "g++", "clang", "make", "pip", "pip3")


def instructions() -> list[tuple[str, str]]:
    """Every instruction of the file with its value, in their order."""
    structure = DockerfileParser(fileobj=io.BytesIO(FILE.read_bytes())).structure
    return [(line["instruction"], line["value"]) for line in structure if line["instruction"] != "COMMENT"]


def stages() -> list[list[tuple[str, str]]]:
    """The instructions of each stage, the first of which is its FROM; what comes before the first stage is left out."""
    found: list[list[tuple[str, str]]] = []
    for instruction, value in instructions():
        if instruction == "FROM":
            found.append([])
        if found:
            found[-1].append((instruction, value))
    return found


def values(stage: list[tuple[str, str]], instruction: str) -> list[str]:
    return [value for name, value in stage if name == instruction]


def copied(stage: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """What is copied from the source tree, and where to."""
    pairs = []
    for value in values(stage, "COPY"):
        words = value.split()
        if not words[0].startswith("--from="):
            pairs += [(source, words[-1]) for source in words[:-1]]
    return pairs


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment that the first stage makes, from a tree that holds only what it copies."""
    folder = tmp_path_factory.mktemp("image")
    source = folder / "source"
    for name, place in copied(stages()[0]):
        target = source / place / Path(name).name if place.endswith("/") else source / place
        target.parent.mkdir(parents=True, exist_ok=True)
        ignored = shutil.ignore_patterns("__pycache__", "*.so", "_core.c")
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=ignored)
        else:
            shutil.copy2(ROOT / name, target)
    (step,) = values(stages()[0], "RUN")
    script, place = step.split()
    environment = folder / place.lstrip("/")
    environment.parent.mkdir(parents=True, exist_ok=True)
    outside = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": ""}
    subprocess.run([source / script, environment], cwd=folder, env=outside, check=True, timeout=400)
    shutil.rmtree(source)
    return environment


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run([HADOLINT, "--format=json", FILE], capture_output=True, text=True, check=False)
    assert json.loads(done.stdout) == []


def test_all_that_is_copied_is_there_and_not_ignored() -> None:
    wanted = {source for stage in stages() for source, _ in copied(stage)}
    lines = (ROOT / ".containerignore").read_text(encoding="utf-8").splitlines()
    assert lines[1] == "*"
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == wanted
    assert [source for source in wanted if not (ROOT / source).exists()] == []


def test_the_last_stage_installs_nothing_and_is_not_run_by_root() -> None:
    build, last = stages()
    assert "-slim-" in values(last, "FROM")[0]
    assert values(last, "USER") == ["10001:10001"]
    assert [step for step in values(last, "RUN") if not step.startswith("install --directory")] == []
    assert f'org.opencontainers.image.version="{__version__}"' in " ".join(values(last, "LABEL"))
    assert "--from=build /opt/balancerd /opt/balancerd" in values(last, "COPY")
    assert values(build, "RUN") == ["deploy/container/install /opt/balancerd"]


@pytest.mark.timeout(480)
def test_the_steps_make_an_environment_that_works_without_the_tree(installed: Path, tmp_path: Path) -> None:
    clean = {"PATH": f"{installed / 'bin'}:/usr/bin:/bin"}

    def run(*words: str | Path) -> str:
        return subprocess.run(words, cwd=tmp_path, env=clean, capture_output=True, text=True, check=True).stdout

    assert run("balancerd", "--version") == f"balancerd {__version__}\n"
    run("balancerctl", "config", "check", ROOT / "config" / "balancerd.yaml")
    place = run(installed / "bin/python", "-c", "import balancerd.native._core as core; print(core.__file__)")
    assert Path(place.strip()).is_relative_to(installed)
    alone = {"metrics": {"listen": None}, "control": {"socket": f"{tmp_path}/s"}, "state_directory": str(tmp_path)}
    (tmp_path / "once.yaml").write_text(json.dumps(alone))
    run("balancerd", "--config", tmp_path / "once.yaml", "--once")


@pytest.mark.timeout(480)
def test_the_environment_holds_what_is_pinned_and_no_tools_to_build_with(installed: Path) -> None:
    pinned = {
        line.split("==")[0].lower()
        for line in (ROOT / "deploy/requirements/run.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    }
    (packages,) = installed.glob("lib/python3*/site-packages")
    names = {path.name.split("-")[0].lower().replace("_", "-") for path in packages.glob("*.dist-info")}
    assert names - {"balancerd"} <= {name.replace(".", "-").replace("_", "-") for name in pinned}
    assert {"balancerd", "pydantic", "cffi"} <= names
    assert [name for name in COMPILERS if (installed / "bin" / name).exists()] == []
