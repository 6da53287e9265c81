"""What counts as flat, and the page of what load and time do to the daemon."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench.endurance import PAGE, keep, page, print_document, read_kept
from tests.bench.series import Point, growth, rows

FLAT = [
    Point(at=10.0 * look, rss_mib=60.0, descriptors=20, threads=18, cpu_seconds=0.5 * look, series=300)
    for look in range(1, 31)
]


def test_what_stays_as_it_is_is_flat_and_so_is_a_beginning_that_takes_its_time() -> None:
    assert growth(FLAT) == []
    warm = [replace(point, rss_mib=40.0 + 2 * point.at / 10) if point.at <= 100 else point for point in FLAT]
    assert growth(warm) == []
    noisy = [replace(point, rss_mib=90.0, descriptors=90) if point.at % 50 == 0 else point for point in FLAT]
    assert growth(noisy) == []


@pytest.mark.parametrize(
    ("grown", "told"),
    [
        ([replace(p, rss_mib=60.0 + p.at / 60) for p in FLAT], "RSS 62.5833 MiB, then 64.25 MiB"),
        ([replace(p, descriptors=20 + round(p.at) // 20) for p in FLAT], "descriptors 27.5, then 32.5"),
        ([replace(p, threads=18 + round(p.at) // 20) for p in FLAT], "threads 25.5, then 30.5"),
        ([replace(p, series=round(2 * p.at)) for p in FLAT], "series 310, then 510"),
        ([replace(p, cpu_seconds=p.at**2 / 2000) for p in FLAT], "CPU 15.50% of a core, then 25.50%"),
    ],
)
def test_what_grows_is_told_with_both_figures(grown: list[Point], told: str) -> None:
    assert growth(grown) == [told]


def test_a_few_looks_tell_nothing() -> None:
    with pytest.raises(ValueError, match="8 looks cannot tell what grows"):
        growth(FLAT[:8])


def test_the_table_has_each_part_of_the_time_with_its_share_of_a_core() -> None:
    told = rows(FLAT, 3)
    assert [row["until s"] for row in told] == [100, 200, 300]
    assert {row["% of a core"] for row in told} == {5.0}


def test_the_page_tells_what_is_kept_and_nothing_else() -> None:
    assert PAGE.read_text("utf-8") == page(read_kept())


def test_what_a_benchmark_printed_last_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print("a table")
    print_document({"bench": "soak", "minutes": 31.0})
    keep(capsys.readouterr().out, tmp_path)
    assert read_kept(tmp_path)["soak"]["minutes"] == 31.0
    assert read_kept(tmp_path)["soak"]["commit"]


@pytest.mark.parametrize("printed", ["", "a table\n", "[1]\n", '{"bench": "access"}\n'])
def test_what_is_no_such_document_is_not_kept(printed: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"print|Expecting"):
        keep(printed, tmp_path)
    assert read_kept(tmp_path) == {}
