"""Counting pages by node from numa_maps, against captured text and lines of which everything is known."""

import re
from pathlib import Path

import pytest

from balancerd.native import MalformedTextError, count_numa_maps, parse_maps
from tests.unit.kernel.trees import MACHINES

CAPTURES = [MACHINES / name / "proc/exhibit" for name in ("one-node-6.18", "four-nodes-6.12")]
MAPS = "".join(f"{page << 12:x}-{(page + 1) << 12:x} rw-p 00000000 00:00 0 \n" for page in (1, 2, 3, 4)).encode()


@pytest.mark.parametrize("exhibit", CAPTURES)
def test_the_captured_counts_are_those_of_every_mapping(exhibit: Path) -> None:
    maps, text = (exhibit / "maps").read_bytes(), (exhibit / "numa_maps").read_bytes()
    table = parse_maps(maps)
    found = count_numa_maps(text, table, n_nodes=4)
    expected = {}
    for words in map(str.split, text.decode().splitlines()):
        kib = next((int(w.partition("=")[2]) for w in words if w.startswith("kernelpagesize_kB=")), 4)
        nodes = {int(n): int(pages) * kib // 4 for n, pages in re.findall(r" N(\d+)=(\d+)", " ".join(words))}
        if nodes:
            expected[int(words[0], 16)] = tuple(nodes.get(n, 0) for n in range(4))
    by_start = {table.row(row.vma).start: row.on_node for row in found.rows}
    assert by_start == {start: pages for start, pages in expected.items() if start in by_start}
    starts = {table.row(i).start for i in range(len(table)) if table.row(i).stratum is not None}
    assert by_start.keys() == expected.keys() & starts
    assert found.present_units == sum(map(sum, by_start.values())) > 1000
    assert found.on_node == tuple(map(sum, zip(*by_start.values(), strict=True)))


def test_huge_pages_count_their_base_pages_and_names_mean_nothing() -> None:
    text = (
        b"1000 default file=/x\\040N3=7 huge dirty=3 N0=1 N2=2 kernelpagesize_kB=2048\n"
        b"1800 default anon=1 N0=9 kernelpagesize_kB=4\n"
        b"2000 weighted interleave:0-1 heap anon=5 dirty=5 N1=5 kernelpagesize_kB=4\n"
        b"3000 default\n"
        b"\n"
        b"4000 prefer (many):0-1 anon=4 N0=4 N9=3 kernelpagesize_kB=4"
    )
    found = count_numa_maps(text, parse_maps(MAPS), n_nodes=3)
    assert [(row.vma, row.on_node) for row in found.rows] == [(0, (512, 0, 1024)), (1, (0, 5, 0)), (3, (4, 0, 0))]
    assert (found.on_node, found.present_units) == ((516, 5, 1024), 1545)


def test_mappings_that_came_or_went_in_between_are_passed_over() -> None:
    found = count_numa_maps(b"0 default N0=1\n3000 default N0=2\n9000 default N0=3\n", parse_maps(MAPS), n_nodes=1)
    assert [(row.vma, row.on_node) for row in found.rows] == [(2, (2,))]
    assert count_numa_maps(b"", parse_maps(MAPS), n_nodes=1).rows == ()
    assert count_numa_maps(b"1000 default N0=1\n", parse_maps(b""), n_nodes=1).rows == ()


@pytest.mark.parametrize(
    "line",
    ["nonsense", "1000x default", "1000 default N0=x", "1000 default N0=1x", "1000 default N0=1 kernelpagesize_kB=0"],
)
def test_a_line_that_is_not_understood_is_refused(line: str) -> None:
    with pytest.raises(MalformedTextError):
        count_numa_maps(line.encode(), parse_maps(MAPS), n_nodes=1)
