"""Precision and recall from counts; the kept files and the page made of them. No machine is started here."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from balancerd.model.sample import PAGE_BYTES
from tests.bench import __main__ as all_benchmarks
from tests.bench.locality.boots import RunError
from tests.bench.recall import figures, record, report
from tests.bench.recall.boots import compared
from tests.bench.recall.figures import Figures, Judged, Run, Sampled
from tests.bench.recall.inside import marks_of
from tests.bench.recall.programs import PROGRAMS, ready
from tests.bench.recall.record import Boot, RecordError, Sampling, Way
from tests.bench.recall.watching import PRESENT, WAYS, merged, present_spans
from tests.lab.oracle.counters import parse_counters

PAGE = PAGE_BYTES
START = 100 * PAGE


def run(first: int, last: int, node: int, *, is_sure: bool = True) -> Run:
    """Pages `first` to `last` of the memory that begins at START, both included."""
    return Run(start=START + first * PAGE, end=START + (last + 1) * PAGE, node=node, is_sure=is_sure)


def truth(*by_node: tuple[int, int]) -> dict[int, tuple[int, int]]:
    """Accesses from two nodes by page, from START on."""
    return {START + number * PAGE: counts for number, counts in enumerate(by_node)}


def compare(pages: dict[int, tuple[int, int]], runs: list[Run], samples: list[Sampled] | None = None) -> Figures:
    everything = [(START, START + 1000 * PAGE)]
    return figures.figures(
        pages, mappings=everything, watched=everything, present=everything, runs=runs, samples=samples or []
    )


@pytest.mark.parametrize(
    ("counts", "node"),
    [((10, 0), 0), ((0, 1), 1), ((60, 40), 0), ((59, 41), None), ((40, 60), 1), ((5, 5), None), ((2, 2, 6), 2)],
)
def test_a_page_is_of_the_node_that_makes_six_tenths_of_its_accesses(counts: tuple[int, ...], node: int | None) -> None:
    assert figures.owner(counts) == node


def test_precision_is_by_bytes_and_recall_by_accesses() -> None:
    found = compare(truth((90, 10), (5, 95), (50, 50), (0, 700)), [run(0, 1, 0), run(2, 2, 0)])
    assert found.every == Judged(
        pages=3, right_pages=1, unused_pages=0, accesses=300, near_accesses=145, owned_accesses=100
    )
    assert figures.precision(found.every) == pytest.approx(1 / 3)
    assert figures.near_share(found.every) == pytest.approx(145 / 300)
    assert figures.recall(found.every, found) == pytest.approx(300 / 1000)
    assert figures.owned_recall(found.every, found) == pytest.approx(100 / 900)


def test_pages_that_nobody_accessed_count_as_wrong_and_are_told_apart() -> None:
    found = compare(truth((10, 0)), [run(0, 3, 0)])
    assert figures.precision(found.every) == 0.25
    assert found.every.unused_pages == 3
    assert figures.used_precision(found.every) == 1.0


def test_runs_that_the_policy_would_not_act_on_are_left_out_of_the_sure_ones() -> None:
    found = compare(truth((10, 0), (10, 0)), [run(0, 0, 0), run(1, 1, 1, is_sure=False)])
    assert figures.precision(found.every) == 0.5
    assert figures.precision(found.sure) == 1.0
    assert figures.recall(found.sure, found) == 0.5


def test_a_sample_hits_when_its_own_node_accessed_the_page() -> None:
    pages = truth((10, 0), (1, 9))
    samples = [
        Sampled(page=START, node=0, samples=3),
        Sampled(page=START, node=1, samples=2),
        Sampled(page=START + PAGE, node=1, samples=4),
        Sampled(page=START + 2 * PAGE, node=0, samples=1),
    ]
    found = compare(pages, [], samples)
    assert (found.sampled, found.hits) == (10, 7)
    assert figures.hit_rate(found) == 0.7


def test_accesses_elsewhere_are_not_of_the_process_or_not_of_watched_memory() -> None:
    pages = {START: (1, 0), START + 10 * PAGE: (2, 0), START + 20 * PAGE: (4, 0)}
    found = figures.figures(
        pages,
        mappings=[(START + 10 * PAGE, START + 11 * PAGE), (START, START + PAGE)],
        watched=[(START, START + PAGE)],
        present=[],
        runs=[],
        samples=[],
    )
    assert (found.process_accesses, found.accesses, found.used_pages) == (3, 1, 1)


def test_the_first_and_the_last_page_of_a_mapping_are_of_it_and_the_next_one_is_not() -> None:
    pages = truth((1, 0), (1, 0), (1, 0), (1, 0))
    assert list(figures.within(pages, [(START + PAGE, START + 3 * PAGE)])) == [START + PAGE, START + 2 * PAGE]


def test_of_nothing_there_are_no_shares() -> None:
    found = compare({}, [])
    told = (figures.precision(found.every), figures.used_precision(found.every), figures.near_share(found.every))
    assert told == (None, None, None)
    assert figures.recall(found.every, found) is figures.owned_recall(found.every, found) is None
    assert figures.hit_rate(found) is None


def test_pages_of_runs_that_are_not_in_memory_do_not_count_unless_they_were_used() -> None:
    memory = [(START, START + 100 * PAGE)]
    found = figures.figures(
        truth((10, 0)),
        mappings=memory,
        watched=memory,
        present=[(START + PAGE, START + 2 * PAGE)],
        runs=[run(0, 9, 0)],
        samples=[],
    )
    assert (found.every.pages, found.every.right_pages, found.every.unused_pages) == (2, 1, 1)
    assert found.present_pages == 2


def test_what_a_run_holds_beyond_watched_memory_counts_as_bytes_and_not_as_accesses() -> None:
    found = figures.figures(
        truth((10, 0), (30, 0)),
        mappings=[(START, START + 2 * PAGE)],
        watched=[(START, START + PAGE)],
        present=[],
        runs=[run(0, 1, 0)],
        samples=[],
    )
    assert (found.every.pages, found.every.right_pages) == (2, 2)
    assert figures.recall(found.every, found) == figures.owned_recall(found.every, found) == 1.0


def test_pages_are_in_memory_by_the_highest_bit_of_their_entries() -> None:
    entries = [PRESENT, PRESENT | 5, PRESENT - 1, 0, PRESENT | 1 << 62]
    assert present_spans(entries, START) == [(START, START + 2 * PAGE), (START + 4 * PAGE, START + 5 * PAGE)]


def test_mappings_that_grew_are_one() -> None:
    assert merged([(8, 12), (0, 4), (8, 10), (4, 6), (9, 11)]) == [(0, 6), (8, 12)]


ANSWER = {
    "seconds": 30.0,
    "samples": 1000,
    "hits": 900,
    "lost": 5,
    "throttled": 0,
    "threads": 2,
    "hertz": 781,
    "mappings": [[START, START + 8 * PAGE]],
    "watched": [[START, START + 8 * PAGE]],
    "present": [[START, START + 8 * PAGE]],
    "runs": [[START, START + PAGE, 1, True]],
    "sampled": [[START, 1, 12.5], [START + PAGE, 0, 2.5]],
}
COUNTERS = f"""\
oracle 1
cpus 0 1
distances 10 21 21 10
caches 32 1024
mark {{before}} 1.0 0 3
page {START // PAGE:x} 100 7
.
mark {{after}} 31.0 0 5
page {START // PAGE:x} 100 27
page {START // PAGE + 1:x} 5 5
.
"""


@pytest.mark.parametrize("way", WAYS)
def test_only_what_happened_between_the_two_markers_of_a_way_counts(way: str) -> None:
    before, after = marks_of("redis", way)
    found = compared("redis", way, ANSWER, parse_counters(COUNTERS.format(before=before, after=after), "counters"))
    assert found.lost_accesses == 2
    assert found.sampling.hertz == 781
    assert found.figures.accesses == 30
    assert figures.recall(found.figures.every, found.figures) == pytest.approx(20 / 30)
    assert figures.hit_rate(found.figures) == 1.0


def test_each_way_of_each_program_has_markers_of_its_own() -> None:
    numbers = [number for program in PROGRAMS for way in WAYS for number in marks_of(program, way)]
    assert len(set(numbers)) == 2 * len(WAYS) * len(PROGRAMS)


def test_a_window_without_its_markers_is_an_error() -> None:
    counted = parse_counters(COUNTERS.format(before=1, after=9), "counters")
    with pytest.raises(RunError, match="no marker"):
        compared("list", "decoded", ANSWER, counted)


def boot(program: str = "list", *, right_pages: int = 90) -> Boot:
    judged = Judged(
        pages=100,
        right_pages=right_pages,
        unused_pages=5,
        accesses=5000,
        near_accesses=4900,
        owned_accesses=2000,
    )
    found = Figures(
        process_accesses=12_500,
        accesses=10_000,
        owned_accesses=8_000,
        present_pages=200,
        used_pages=150,
        sampled=1000.0,
        hits=990.0,
        every=judged,
        sure=replace(judged, pages=50, right_pages=49, unused_pages=0),
    )
    sampling = Sampling(seconds=30.0, samples=1200, hits=900, lost=0, throttled=0, threads=4, hertz=781)
    return Boot(
        program=program,
        summary="linked lists",
        mib=64,
        attempts=1,
        commit="0123456789ab",
        host_cpus=2,
        kernel="6.12.0",
        versions={"QEMU": "7.2"},
        ways={way: Way(sampling=sampling, lost_accesses=0, figures=found) for way in WAYS},
    )


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    record.write_boot(tmp_path, boot())
    record.write_boot(tmp_path, boot("copy"))
    assert record.read_boots(tmp_path) == (boot("copy"), boot())


def test_a_file_that_is_not_ours_is_named(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    for text in ("{", "{}", '{"ways": {"decoded": {}}}', '{"ways": {}, "colour": 1}'):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(RecordError, match=r"list\.json"):
            record.read_boots(tmp_path)


def test_the_page_tells_the_figures_that_are_kept() -> None:
    page = report.page([boot(), boot("copy", right_pages=100)])
    assert "| list | decoded | 90.0 | 94.7 | 98.0 | 50.0 | 25.0 | 0.4 | 99.0 | 75.0 | 80.0 |" in page
    assert "| copy | registers | 100.0 |" in page
    assert "| list | decoded | 98.0 | 98.0 | 98.0 | 50.0 | 25.0 | 0.2 |" in page  # the sure ones
    assert "75.0 %" in page  # 900 of 1200 samples told an address


def test_the_page_names_what_was_not_measured() -> None:
    names = sorted(PROGRAMS)
    assert f"not measured: {names[0]}, {names[2]}\n" in report.page(
        [boot(n) for n in names if n not in (names[0], names[2])]
    )
    assert "not measured: none" in report.page([boot(name) for name in names])


def test_the_page_keeps_the_order_of_the_programs() -> None:
    lines = report.summary([boot(name) for name in sorted(PROGRAMS)]).splitlines()
    assert list(dict.fromkeys(line.split()[1] for line in lines[2:])) == list(PROGRAMS)


def test_the_page_that_is_kept_is_made_of_the_boots_that_are_kept() -> None:
    assert report.PAGE.read_text(encoding="utf-8") == report.page(record.read_boots(record.FOLDER))


def test_it_is_among_the_benchmarks_and_takes_options() -> None:
    assert all_benchmarks.COMMANDS["recall"] == ("tests.bench.recall",)
    assert "recall" in all_benchmarks.WITH_OPTIONS


def test_a_program_is_ready_once_it_says_so_and_ends_with_its_block(tmp_path: Path) -> None:
    with ready(["sh", "-c", "echo ready; exec tail -f /dev/null"], os.environ, tmp_path) as pid:
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("command", ["echo out of memory >&2", "echo out of memory >&2; echo unready"])
def test_a_program_that_does_not_get_ready_is_told_with_its_last_words(command: str, tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="not ready: out of memory"),
        ready(["sh", "-c", command], os.environ, tmp_path),
    ):
        pass


def test_every_program_says_what_it_is() -> None:
    assert {program.name for program in PROGRAMS.values()} == PROGRAMS.keys()
    assert all(program.summary and program.mib >= 32 for program in PROGRAMS.values())
