"""Figures of faults: what counts as clean, what is kept and read again, and the page of them."""

import dataclasses
from pathlib import Path

import pytest

from tests.bench.faults import record, report
from tests.bench.faults.record import Kept, RecordError
from tests.lab.faults import tally
from tests.lab.faults.tally import Figures, Tally
from tests.lab.workloads import Ended


def figures(fault: str = "ends", **changed: object) -> Figures:
    told = Figures(fault=fault, what="it ends", topology="four-nodes", kernel="6.12.1", seed=1, tries=3, survived=3)
    return dataclasses.replace(told, **changed)  # type: ignore[arg-type]


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tally, "OUT", tmp_path / "faults")
    return tmp_path / "faults"


def left_in(out: Path) -> Figures:
    (path,) = out.glob("*.json")
    return record.parse_figures(path.read_text(), str(path))


def test_tries_that_come_through_are_counted_and_left_in_a_file(out: Path) -> None:
    with Tally("ends", "it ends", tries=3, seed=1) as counted:
        for _ in counted.tries:
            with counted.trying():
                counted.verify(Ended(status=0, told="verified 5 pages"), 5)
                counted.count("moves")
    told = left_in(out)
    assert (told.tries, told.survived, told.counted, told.failures) == (3, 3, {"moves": 3}, [])


def test_a_try_that_fails_is_no_survivor_and_the_test_fails_at_the_end(out: Path) -> None:
    with pytest.raises(AssertionError, match="corrupt"), Tally("ends", "it ends", tries=2, seed=1) as counted:  # noqa: PT012
        for number in counted.tries:
            with counted.trying():
                counted.verify(Ended(status=number, told="corrupt at 0x1" if number else "verified 5 pages"), 5)
    told = left_in(out)
    assert (told.tries, told.survived, told.pages_lost, told.workload_errors) == (2, 1, 5, 1)


def test_pages_of_which_nobody_tells_are_lost(out: Path) -> None:
    with pytest.raises(AssertionError), Tally("ends", "it ends", tries=1, seed=1) as counted, counted.trying():
        counted.lose(10, 7)
    assert (left_in(out).pages_lost, left_in(out).survived) == (3, 0)


def test_pages_that_should_have_stayed_are_told_of(out: Path) -> None:
    with pytest.raises(AssertionError), Tally("ends", "it ends", tries=1, seed=1) as counted, counted.trying():
        counted.stay(4)
    assert left_in(out).wrongly_moved_pages == 4


def test_after_some_that_went_wrong_there_are_no_more_tries(out: Path) -> None:
    with pytest.raises(AssertionError), Tally("ends", "it ends", tries=50, seed=1) as counted:  # noqa: PT012
        for _ in counted.tries:
            with counted.trying():
                raise RuntimeError("it always does")
    assert left_in(out).tries == tally.PATIENCE


def test_what_was_never_tried_is_no_success_unless_it_says_why(out: Path) -> None:
    with pytest.raises(AssertionError, match="never tried"), Tally("ends", "it ends", tries=0, seed=1):
        pass
    with Tally("ends", "it ends", tries=0, seed=1) as counted:
        counted.lack("no such kernel")
    assert left_in(out).lacking == "no such kernel"


def test_what_ends_the_test_itself_is_kept_too(out: Path) -> None:
    with pytest.raises(KeyError), Tally("ends", "it ends", tries=1, seed=1):
        raise KeyError("gone")
    assert left_in(out).failures == ["KeyError: 'gone'"]


def test_the_same_seed_throws_the_same_dice() -> None:
    def thrown(fault: str, seed: int) -> float:
        return Tally(fault, "", tries=1, seed=seed).dice.random()

    assert thrown("a", 1) == thrown("a", 1)
    assert len({thrown("a", 1), thrown("b", 1), thrown("a", 2)}) == 3


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    kept = Kept(commit="abc", figures=figures(counted={"moves": 3}, failures=["try 1: no"]))
    record.write(tmp_path / "results", kept)
    assert record.read(tmp_path / "results") == (kept,)
    assert record.read(tmp_path / "nothing") == ()


@pytest.mark.parametrize(
    ("text", "why"),
    [("{", "Expecting"), ('{"figures": {}}', "'commit' is missing"), ('{"commit": "a", "figures": {"x": 1}}', "'x'")],
)
def test_a_file_that_is_none_of_ours_is_refused_with_its_path(text: str, why: str) -> None:
    with pytest.raises(RecordError, match=rf"(?s)there\.json: .*{why}"):
        record.parse(text, "there.json")


def test_the_page_has_each_fault_their_sum_and_what_was_amiss() -> None:
    page = report.page(
        [
            Kept(commit="abc", figures=figures(counted={"moves done": 7}, seconds=12.4)),
            Kept(commit="abc+", figures=figures("stops", survived=1, pages_lost=2, failures=["try 2:\n it\tbroke"])),
            Kept(commit="abc", figures=figures("failslab", tries=0, survived=0, lacking="it has not")),
        ]
    )
    assert "| ends | it ends | four-nodes | 3 | 3 | 0 | 0 | 0 |" in page
    assert "| all |  |  | 6 | 4 | 2 | 0 | 0 |" in page
    assert "- *ends*: moves done 7; took 12 s" in page
    assert "- *stops*: try 2: it broke" in page
    assert "- *failslab*: it has not" in page
    assert "| failslab" not in page
    assert "abc (2), abc+ (1)" in page


def test_the_page_that_is_committed_is_that_of_the_figures_that_are() -> None:
    assert report.PAGE.read_text(encoding="utf-8") == report.page(record.read(record.FOLDER))


def test_every_figure_that_is_committed_is_clean() -> None:
    kept = record.read(record.FOLDER)
    assert [it.figures.fault for it in kept if not it.figures.is_clean] == []
