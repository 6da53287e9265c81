"""Which threads of a process are chosen, over trees of files."""

from pathlib import Path

import pytest

from balancerd.kernel.accesses.threads import CHOICE_SECONDS, MANY_CHOICE_SECONDS, ThreadChoice
from balancerd.kernel.errors import ProcessGoneError


def write_threads(root: Path, ticks: dict[int, int]) -> None:
    for tid, utime in ticks.items():
        directory = root / f"7/task/{tid}"
        directory.mkdir(parents=True, exist_ok=True)
        fields = ["S", *["0"] * 10, str(utime), *["0"] * 40]
        (directory / "stat").write_text(f"{tid} (worker) {' '.join(fields)}\n")


def test_all_threads_of_a_process_that_has_few(tmp_path: Path) -> None:
    write_threads(tmp_path, dict.fromkeys(range(1, 5), 0))
    choice = ThreadChoice(7, str(tmp_path), most=4, few=4)
    assert choice.choose(0.0) == {1, 2, 3, 4}


def test_of_many_those_that_ran_most_since_the_last_choice(tmp_path: Path) -> None:
    choice = ThreadChoice(7, str(tmp_path), most=2, few=2)
    write_threads(tmp_path, {1: 900, 2: 10, 3: 20, 4: 800})
    assert choice.choose(0.0) == {1, 4}
    write_threads(tmp_path, {1: 901, 2: 500, 3: 520, 4: 801})
    assert choice.choose(CHOICE_SECONDS / 2) == {1, 4}  # a choice stands for a while
    assert choice.choose(CHOICE_SECONDS) == {2, 3}


def test_of_more_than_a_few_those_that_hardly_run_are_left_out(tmp_path: Path) -> None:
    choice = ThreadChoice(7, str(tmp_path), few=3)
    write_threads(tmp_path, {1: 500, 2: 6, 3: 4, 4: 0})
    assert choice.choose(0.0) == {1, 2}
    write_threads(tmp_path, {1: 500, 2: 6, 3: 4, 4: 90})
    assert choice.choose(MANY_CHOICE_SECONDS / 2) == {1, 2}
    assert choice.choose(MANY_CHOICE_SECONDS) == {4}
    assert choice.choose(2 * MANY_CHOICE_SECONDS) == frozenset()  # all of them sleep


def test_a_thread_that_has_ended_is_chosen_no_more(tmp_path: Path) -> None:
    choice = ThreadChoice(7, str(tmp_path), most=2, few=2)
    write_threads(tmp_path, {1: 9, 2: 8, 3: 7})
    assert choice.choose(0.0) == {1, 2}
    (tmp_path / "7/task/1/stat").unlink()
    (tmp_path / "7/task/1").rmdir()
    write_threads(tmp_path, {4: 0})
    assert choice.choose(1.0) == {2}


def test_a_process_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(ProcessGoneError):
        ThreadChoice(7, str(tmp_path)).choose(0.0)
