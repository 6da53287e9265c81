"""Golden traces decide as the text beside them says: twice, under other hash seeds, by another version of Python."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.traces.golden import FOLDER, NAMES, decisions_of, path_of, replay, text_of
from tests.traces.pythons import other_python
from tests.traces.scenes import SCENES

ROOT = Path(__file__).parents[3]


def decide_elsewhere(python: str, seed: str) -> str:
    """The decisions of all traces in another process; for a failure, what it complained of."""
    done = subprocess.run(
        [python, "-m", "tests.traces.golden"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": seed},
    )
    return done.stderr if done.returncode else done.stdout


def golden() -> str:
    return "".join(text_of(name).read_text(encoding="ascii") for name in NAMES)


def test_there_is_text_beside_every_trace_and_a_scene_for_it() -> None:
    assert sorted(path.name for path in FOLDER.glob("*.trace.gz")) == sorted(f"{name}.trace.gz" for name in NAMES)
    assert sorted(path.name for path in FOLDER.glob("*.txt")) == sorted(f"{name}.decisions.txt" for name in NAMES)
    assert tuple(SCENES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_decisions_are_those_of_the_text_and_the_same_on_a_second_run(name: str) -> None:
    first = decisions_of(path_of(name))
    assert first == text_of(name).read_text(encoding="ascii"), "if that is meant: python -m tests.traces"
    assert decisions_of(path_of(name)) == first


@pytest.mark.parametrize("name", NAMES)
def test_a_scene_that_is_recorded_now_is_decided_in_every_tick_as_the_daemon_did(name: str, tmp_path: Path) -> None:
    """Nothing is asked that the trace does not tell; and it is the same file each time."""
    SCENES[name](tmp_path / "now")
    run = replay(tmp_path / "now")
    assert all(tick.as_recorded for tick in run.ticks())
    assert run.summary.as_recorded == run.summary.ticks > 20
    assert not run.summary.missing
    assert run.summary.steps + run.summary.evictions > 3
    assert (run.summary.ended, run.summary.broken) == ("as asked", None)
    SCENES[name](tmp_path / "again")
    assert (tmp_path / "now").read_bytes() == (tmp_path / "again").read_bytes()


@pytest.mark.parametrize("seed", ["0", "4242"])
def test_another_hash_seed_makes_no_difference(seed: str) -> None:
    assert decide_elsewhere(sys.executable, seed) == golden()


def test_another_version_of_python_decides_the_same() -> None:
    python = other_python()
    if python is None:
        pytest.skip("no other version of Python is here, or `make unit` has not made it ready")
    asked = [str(python), "-c", "import sys; print(sys.version_info.minor)"]
    assert int(subprocess.run(asked, capture_output=True, text=True, check=True).stdout) != sys.version_info.minor
    assert decide_elsewhere(str(python), "7") == golden()
