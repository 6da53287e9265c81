"""docs/reference.md is the generated one, and tells everything."""

from pathlib import Path

import pytest

from balancerd.cli import reference
from balancerd.metrics.catalogue import catalogue
from balancerd.model.decision import Reason
from balancerd.model.page_status import PageStatus

PAGE = Path(__file__).parents[3] / "docs" / "reference.md"


def test_the_page_is_the_generated_one() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference.reference(), (
        "write it anew: .venv/bin/python -m balancerd.cli.reference docs/reference.md"
    )


def test_every_reason_every_status_and_every_metric_has_a_row() -> None:
    rows = {line.split("`")[1] for line in reference.reference().splitlines() if line.startswith("| `")}
    assert {*map(str, Reason), *map(str, PageStatus), "select.min_rss", "policies[].kind", "min_home_age"} <= rows
    assert {metric.name for metric in catalogue()} <= rows


def test_a_bar_in_a_text_does_not_end_its_cell(tmp_path: Path) -> None:
    assert reference._table(("a",), [("x|y",)]).splitlines()[-1] == "| x\\|y |"
    assert reference.main([str(tmp_path / "page.md")]) == 0
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == reference.reference()


def test_without_a_file_it_says_how_to_use_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert reference.main([]) == 2
    assert "usage" in capsys.readouterr().err
