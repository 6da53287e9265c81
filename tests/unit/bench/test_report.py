"""The report of the boots in kept/, whose figures were chosen to be worked out by hand; golden/ is what it must say.

To look at what a change does to it: python -m tests.unit.bench.test_report writes golden/ anew.
"""

from pathlib import Path

import pytest

from tests.bench.locality import compare, record, report, tables
from tests.bench.locality.compare import Spread
from tests.unit.bench.counted import boot

HERE = Path(__file__).parent
PAGES = {"RESULTS.md": report.results, "headline.md": report.headline}


@pytest.mark.parametrize("name", PAGES)
def test_the_pages_say_what_they_said(name: str) -> None:
    boots = record.read_boots(HERE / "kept")
    assert PAGES[name](boots) == (HERE / "golden" / name).read_text(encoding="utf-8")


def row(page: str, heading: str, first: str) -> list[str]:
    """A row below a heading, without its first cell."""
    section = page.partition(f"# {heading}\n")[2].partition("\n#")[0]
    (line,) = (line for line in section.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_what_was_not_measured_is_a_dash() -> None:
    page = report.results([boot("nothing"), boot("kernel", workload="parts"), boot("bound", workload="parts")])
    assert row(page, "Summary", "single") == ["-"] * len(compare.RIVALS)
    assert row(page, "Summary", "parts") == ["-", "1.00, n=1", "-", "-", "-", "-", "-", "1.00, n=1"]
    assert set(row(page, "parts", "numad")) == {"-"}
    assert "It was not measured." in page


def test_a_single_boot_has_no_range_and_more_have_one() -> None:
    boots = [boot("bound"), *(boot("kernel", n, kernel_cost=10.0 * n) for n in (1, 2, 3))]
    assert row(report.results(boots), "Summary", "single")[1] == "1.20 (1.10-1.30), n=3"
    assert row(report.results(boots[:2]), "Summary", "single")[1] == "1.10, n=1"


def test_boots_of_several_commits_are_all_used_and_the_commits_named() -> None:
    page = report.results([boot("bound"), boot("kernel", commit="aaa+"), boot("numad", commit="aaa+")])
    assert "aaa+ (2), 0123456789ab (1)" in page
    assert row(page, "Summary", "single") == ["-", "1.00, n=1", "1.00, n=1", "-", "-", "-", "-", "1.00, n=1"]


def test_a_rival_under_which_accesses_are_missing_on_the_workloads_cpus_is_named() -> None:
    page = report.results([boot("bound"), boot("numad", accesses=96), boot("kernel", accesses=97)])
    assert "Under numad CPUs 0 to 3 made 96% of bound's accesses" in page
    assert "Under kernel" not in page


BEFORE, AFTER = "# Title\r\n\n<!-- other -->\n", "\n\ttail without an end \u00e9"


def test_the_rest_of_the_readme_stays_byte_for_byte() -> None:
    page = f"{BEFORE}{report.BEGIN}\nold\n\nold\n{report.END}{AFTER}"
    once = report.inserted(page, "| new |")
    assert once == f"{BEFORE}{report.BEGIN}\n| new |\n{report.END}{AFTER}"
    assert report.inserted(once, "| new |") == once


@pytest.mark.parametrize(
    "page",
    [
        "",
        report.BEGIN,
        report.END,
        f"{report.END}\n{report.BEGIN}",
        f"{report.BEGIN}\n{report.END}\n{report.BEGIN}\n{report.END}",
        f"{report.BEGIN}\n{report.END}\n{report.END}",
    ],
)
def test_a_page_without_its_two_lines_is_not_touched(page: str) -> None:
    with pytest.raises(ValueError, match="each once"):
        report.inserted(page, "new")


def test_the_readme_has_its_place_for_the_table() -> None:
    page = report.README.read_text(encoding="utf-8")
    assert "| new |" in report.inserted(page, "| new |")


def test_the_headline_tells_of_those_who_were_measured_and_of_nobody_else() -> None:
    beside_nobody = boot("kernel", workload="crossed")
    page = report.headline([boot("bound"), boot("numad", kernel_cost=30.0), beside_nobody])
    assert [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("|")] == [
        *("workload", "---", "single"),
    ]
    assert page.splitlines()[0] == "| workload | numad | bound |"
    assert "medians of 1 boot each" in page


def test_what_is_published_is_what_the_kept_boots_say() -> None:
    boots = record.read_boots(record.FOLDER)
    page = report.README.read_text(encoding="utf-8")
    again = "write it anew: python -m tests.bench report"
    assert report.RESULTS.read_text(encoding="utf-8") == report.results(boots), again
    assert page == report.inserted(page, report.headline(boots)), again


@pytest.mark.parametrize(
    ("spread", "words"),
    [
        (None, "-"),
        (Spread(median=1.234, low=1.234, high=1.234, n=1), "1.23"),
        (Spread(median=1.234, low=1.231, high=1.2349, n=3), "1.23"),
        (Spread(median=1.2, low=1.0, high=1.5, n=3), "1.20 (1.00-1.50)"),
        (Spread(median=-0.001, low=-0.2, high=0.1, n=3), "0.00 (-0.20 to 0.10)"),
        (Spread(median=4.0, low=3.0, high=float("inf"), n=3), "4.00 (3.00-never)"),
    ],
)
def test_a_spread_is_told_with_its_range_where_that_is_seen(spread: Spread | None, words: str) -> None:
    assert tables.told(spread, 2) == words


if __name__ == "__main__":
    for name, page in PAGES.items():
        (HERE / "golden" / name).write_text(page(record.read_boots(HERE / "kept")), encoding="utf-8")
